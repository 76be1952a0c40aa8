# %% Run
from ddpm_lit import load_pretrained

run = load_pretrained("digits")
print(run.shape, run.schedule.T, run.param.name)
# -> (1, 8, 8) 1000 v

# %% Run.draw
from ddpm_lit import DPMSolver, load_pretrained

run = load_pretrained("digits")
images = run.draw(n=6, sampler=DPMSolver(steps=10), seed=1, labels=[7])
print(tuple(images.shape), bool(images.abs().max() <= 1))
# -> (6, 1, 8, 8) True

# %% load_pretrained
from ddpm_lit import load_pretrained

run = load_pretrained("digits")  # or a run folder
print(type(run.model).__name__, run.shape)
# -> UNet (1, 8, 8)
