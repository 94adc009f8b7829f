"""A training loop of one's own with the weights themselves shared out (FSDP): `torchrun --nproc-per-node N fsdp.py`.

Every row of a batch has the level and noise of its slot, whoever has it, so that N changes nothing but the rounding.
"""

import os
import sys

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard

import undiffuse as ud
from undiffuse.random import Purpose, normal, permutation

STEPS, BATCH, SEED = 20, 32, 0
cuda = torch.cuda.is_available()
dist.init_process_group("nccl" if cuda else "gloo")
rank, size = dist.get_rank(), dist.get_world_size()
device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")

x = ud.open_data("digits").x.float() / 8 - 1
net = ud.nets.initialize(ud.nets.build("unet", x.shape[1:], widths=[16, 32], blocks=1, attention=[1]), SEED).to(device)
model = ud.Denoiser(net, ud.EDM(), shape=tuple(x.shape[1:]), sigma_data=float(x.std()))
lists = [module for module in net.modules() if isinstance(module, torch.nn.ModuleList)]
for block in reversed([block for blocks in lists for block in blocks]):  # inner ones first
    if not isinstance(block, torch.nn.ModuleList):
        fully_shard(block)  # gathered when it is used, and let go
fully_shard(net)
optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
levels = ud.loss.NoiseLevelDistribution(sigma_data=model.sigma_data)

first, n = rank * BATCH // size, BATCH // size
for step in range(STEPS):
    rows = x[permutation(SEED, Purpose.ORDER, step, len(x))[first : first + n]].to(device)
    t = levels.times(model.sde, SEED, step, first, n, BATCH).to(device)
    eps = normal(SEED, Purpose.NOISE, step, first, n, x.shape[1:]).to(device)
    loss = ud.loss.denoising_loss(model, rows, t, eps).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

whole = get_model_state_dict(net, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
held = sum(parameter.to_local().numel() for parameter in net.parameters())
sys.stdout.write(f"process {rank} holds {held:,} of {sum(p.numel() for p in net.parameters()):,} weights\n")
if rank == 0:
    torch.save(whole, sys.argv[1] if len(sys.argv) > 1 else "weights.pt")  # for net.load_state_dict
dist.destroy_process_group()
