# %% UNetConfig
from ddpm_lit import UNetConfig

config = UNetConfig(image_size=28, in_channels=1, multipliers=(1, 2, 2), attention=(7,))
print(config.sizes, config.widths, config.attends)
# -> (28, 14, 7) (128, 256, 256) (False, False, True)

# %% TrainConfig
from ddpm_lit import TrainConfig

config = TrainConfig(steps=2000, lr=1e-3, lr_decay="cosine")
print(config.batch_size, config.ema_decay, config.weighting)
# -> 128 0.9999 simple

# %% PRESETS
from ddpm_lit import PRESETS

print(list(PRESETS))
print(PRESETS["mnist"].multipliers)
# -> ['digits', 'mnist', 'cifar10', 'celeba64', 'celeba64-small']
# -> (1, 2, 2)
