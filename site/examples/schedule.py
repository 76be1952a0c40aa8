# %% NoiseSchedule
from ddpm_lit import NoiseSchedule, linear_schedule

schedule = linear_schedule()
print(schedule.T, schedule.at(0).item(), round(schedule.at(500).item(), 4))
betas = schedule.beta[1:]
print(NoiseSchedule.from_betas(betas).T)
# -> 1000 1.0 0.0786
# -> 1000

# %% linear_schedule
from ddpm_lit import linear_schedule

schedule = linear_schedule(T=1000)
print([f"{schedule.at(t):.5f}" for t in (1, 250, 500, 1000)])
# -> ['0.99990', '0.52409', '0.07859', '0.00004']

# %% scaled_linear_schedule
from ddpm_lit import scaled_linear_schedule

schedule = scaled_linear_schedule()  # that of Stable Diffusion
print([f"{schedule.at(t):.5f}" for t in (1, 250, 500, 1000)])
# -> ['0.99915', '0.67543', '0.27767', '0.00466']

# %% cosine_schedule
from ddpm_lit import cosine_schedule

schedule = cosine_schedule(T=1000)
print([f"{schedule.at(t):.5f}" for t in (1, 250, 500, 1000)])
# -> ['0.99996', '0.84701', '0.49384', '0.00000']

# %% sigmoid_schedule
from ddpm_lit import sigmoid_schedule

schedule = sigmoid_schedule(T=1000)
print([f"{schedule.at(t):.5f}" for t in (1, 250, 500, 1000)])
# -> ['0.99970', '0.85085', '0.50000', '0.00000']

# %% zero_terminal_snr
from ddpm_lit import linear_schedule, zero_terminal_snr

schedule = linear_schedule()
print(f"{schedule.snr[-1]:.1e}", zero_terminal_snr(schedule).snr[-1].item())
# -> 4.0e-05 0.0
