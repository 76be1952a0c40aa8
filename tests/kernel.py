"""Kernels that start at once: each is forked from a process that has imported the heavy
libraries, but never the package. A page then costs what its own cells cost, not the ten
seconds of torch, sympy and matplotlib before them."""

import atexit
import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
from concurrent.futures import ProcessPoolExecutor, TimeoutError
from pathlib import Path

from book import ROOT
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

INLINE = "module://matplotlib_inline.backend_inline"
LIMIT = 600  # seconds that one cell may take
PATIENCE = 30  # seconds that a kernel has to end when it is asked to


def begin(connection: str, folder: str, arguments: list[str]) -> int:
    "In the process with the libraries: fork a kernel. Its process id."
    if pid := os.fork():
        return pid
    try:
        os.setsid()  # at its end a kernel sends signals to its whole session
        multiprocessing.set_start_method(None, force=True)  # a kernel's own default
        os.environ["PYTHONPATH"] = str(ROOT)
        os.chdir(folder)
        sys.path[:] = [str(ROOT), *(p for p in sys.path if Path(p) != ROOT / "tests")]
        import matplotlib
        from ipykernel.kernelapp import IPKernelApp

        matplotlib.rcParams["backend"] = INLINE
        parent = f"--IPKernelApp.parent_handle={os.getppid()}"  # it ends with us
        IPKernelApp.launch_instance(argv=["-f", connection, parent, *arguments])
        atexit._run_exitfuncs()
    finally:
        os._exit(0)


def run_in_fork(code: str, folder: Path) -> tuple[int, str]:
    "In the process with the libraries: run code in a fork. Its exit code and output."
    with tempfile.TemporaryFile("w+", encoding="utf-8") as words:
        if not (pid := os.fork()):
            failed = 1
            try:
                for stream in (1, 2):
                    os.dup2(words.fileno(), stream)
                os.chdir(folder)
                sys.path.insert(0, str(folder))
                exec(code, {"__name__": "__main__"})
                failed = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(failed)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        words.seek(0)
        return status, words.read()


def end(pid: int) -> float:
    "Wait until the kernel ends: the seconds of processor time that it took."
    _, _, used = os.wait4(pid, 0)
    return used.ru_utime + used.ru_stime


class ForkedKernel(KernelManager):
    "Starts a kernel by a fork, where jupyter's own manager starts a new Python."

    nursery: ProcessPoolExecutor  # one process, which runs `begin` and `end`
    spent = 0.0  # seconds of processor time of the kernel that ended last

    def start_kernel(self, *, cwd: str, extra_arguments=(), **options) -> None:
        self.write_connection_file()
        arguments = (self.connection_file, cwd, list(extra_arguments))
        self.pid = self.nursery.submit(begin, *arguments).result()
        self.life = self.nursery.submit(end, self.pid)
        self._connect_control_socket()

    @property
    def has_kernel(self) -> bool:
        return hasattr(self, "life")

    async def _async_is_alive(self) -> bool:
        return not self.life.done()

    is_alive = _async_is_alive

    def shutdown_kernel(self, now: bool = False, restart: bool = False) -> None:
        if not now:
            request = self.session.msg("shutdown_request", {"restart": False})
            self.session.send(self._control_socket, request)
        try:
            type(self).spent = self.life.result(0 if now else PATIENCE)
        except TimeoutError:
            os.kill(self.pid, signal.SIGKILL)


def execute(
    notebook, folder: Path, pool: ProcessPoolExecutor, *arguments: str
) -> float:
    """Run all cells of a notebook. The seconds of processor time that they took.

    The kernel takes further arguments, such as --InlineBackend.figure_formats=..."""
    manager = type("Kernel", (ForkedKernel,), {"nursery": pool})
    NotebookClient(
        notebook,
        timeout=LIMIT,
        kernel_name="python3",
        kernel_manager_class=manager,
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=list(arguments),
    ).execute()
    return manager.spent
