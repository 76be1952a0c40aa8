#!/usr/bin/env bash
# What a GPU is borrowed for, by a clock: `benchmarks/gpu.sh 1`, `2`, or `rehearse` on a
# CPU with everything tiny. 1: the tests of the device, training, sampling and layouts
# (400 s). 2: MNIST in minutes (420 s); further words go to mnist_gpu.py.
# Results go to $OUT, or to a new folder whose name is printed. From the environment:
#   BUDGET           seconds in all
#   PYTHON           the interpreter, python3
#   DATA             the folder above MNIST/raw, .whl
#   WORK             a folder that both stages share, with the compiled kernels
#   DDPM_LIT_COMMIT  the commit, where git is missing; else the file .whl/commit
# Packages that are missing here are installed from .whl, if there is such a folder.
set -u
stage=${1:?give a stage: 1, 2 or rehearse}
shift
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
OUT=${OUT:-$(mktemp -d)}
WORK=${WORK:-${TMPDIR:-/tmp}/ddpm-lit-gpu}
DATA=${DATA:-.whl}
mkdir -p "$OUT" "$WORK"
exec > >(tee -a "$OUT/log") 2>&1
echo "stage $stage, results in $OUT"

export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
export TORCHINDUCTOR_CACHE_DIR=$WORK/inductor
[ -f .whl/commit ] && export DDPM_LIT_COMMIT=${DDPM_LIT_COMMIT:-$(cat .whl/commit)}
if ls .whl/*.whl >/dev/null 2>&1; then
    "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir \
        --disable-pip-version-check --upgrade --target "$WORK/site" .whl/*.whl || exit
fi
export PYTHONPATH=$PWD:$WORK/site

left() { echo $((BUDGET - SECONDS)); }
say() { echo "[$SECONDS s] $*"; }

# start NAME NICENESS SCRIPT WORDS...: it compiles now, and is timed after `turn NAME`.
declare -A pid
start() {
    local name=$1 nice=$2
    shift 2
    rm -f "$WORK/$name.go" "$WORK/$name.ready"
    nice -n "$nice" timeout -k 5 "$(left)" "$PYTHON" "$@" --out "$OUT" \
        --hold "$WORK/$name.go" --ready "$READY" &
    pid[$name]=$!
}

# turn NAME PERCENT: of the time that is left.
turn() {
    local seconds=$(($(left) * $2 / 100))
    if [ "$seconds" -lt 3 ] || ! kill -0 "${pid[$1]}" 2>/dev/null; then
        say "$1: left out"
        kill "${pid[$1]}" 2>/dev/null
        return
    fi
    say "$1: $seconds s"
    echo "$seconds" >"$WORK/$1.part" && mv "$WORK/$1.part" "$WORK/$1.go"
    wait "${pid[$1]}"
    say "$1: done"
}

tests() {
    if [ -f tests/test_gpu.py ]; then
        timeout -k 5 "$1" "$PYTHON" -m pytest tests/test_gpu.py -m gpu -q \
            -p no:cacheprovider --durations=8 || say "pytest: exit status $?"
    else
        say "tests/test_gpu.py is not there"
    fi
}

compiled() {  # wait until all have compiled, or have had the time for it
    local name
    for name in "${!pid[@]}"; do
        until [ -f "$WORK/$name.ready" ] || ! kill -0 "${pid[$name]}" 2>/dev/null; do
            sleep 0.5
        done
        say "$name: ready"
    done
}

first() {  # the words of training.py, sampling.py and device.py are in arrays
    # Compilation takes a core for each contender, for minutes: the tests go before it,
    # alone. Where they ran beside it, three of them were done in a minute.
    export OMP_NUM_THREADS=4 TORCHINDUCTOR_COMPILE_THREADS=2
    tests 85
    say "tests: done"
    start training 0 benchmarks/training.py "${training[@]}"
    start sampling 5 benchmarks/sampling.py "${sampling[@]}"
    start device 10 benchmarks/device.py "${device[@]}"
    compiled
    turn training 55
    turn sampling 70
    turn device 80
}

second() {
    rm -rf "$WORK/mnist"
    timeout -k 5 "$(($(left) - 2))" "$PYTHON" benchmarks/mnist_gpu.py --data "$DATA" \
        --out "$OUT" --work "$WORK/mnist" --total "$(($(left) - 8))" "$@"
}

case $stage in
1)
    BUDGET=${BUDGET:-400} READY=170
    training=(--rounds 3 --seconds 0.7) sampling=()
    device=(--seconds 1 --ways cifar10,128,last,no cifar10,128,first,no
        celeba64,64,last,no celeba64,256,last,no)
    first
    ;;
2)
    BUDGET=${BUDGET:-420}
    second --compile "$@"
    ;;
rehearse)
    export CUDA_VISIBLE_DEVICES= TORCH_COMPILE_DISABLE=1 OMP_NUM_THREADS=1
    BUDGET=${BUDGET:-1500} READY=600
    training=(--networks digits --batch-size 8 --rounds 2 --seconds 0.1 --no-waiting
        --contenders ddpm_lit "ddpm_lit, CUDA graphs" "diffusers, bfloat16, compiled")
    sampling=(--networks tiny --n 4 --rounds 1 --ddpm-steps 0)
    device=(--ways digits,8,last,no digits,8,first,default --seconds 0.1)
    first
    second --tiny --digits 200 --seconds 10 --reserve 100 --batch-size 16 --mode no \
        --batch 20 --n 20 --many 40 --few 8 --bits-at-once 2 "$@"
    ;;
*)
    echo "stage must be 1, 2 or rehearse, got $stage"
    exit 2
    ;;
esac
ls -l "$OUT"
say "stage $stage is over"
