# %% Trainer
from ddpm_lit import PRESETS, TrainConfig, Trainer, UNet, cosine_schedule, load_images

model = UNet(PRESETS["digits"])
config = TrainConfig(steps=3, batch_size=16, workers=0)
trainer = Trainer(model, cosine_schedule(), load_images("digits"), config)
for record in trainer.steps():
    print(record.step, f"{record.loss:.0f}")
# -> 1 1
# -> 2 1
# -> 3 1
