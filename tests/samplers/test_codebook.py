"""The codebook: nearest vectors, running means, dead codes, several processes."""

import copy
import threading

import pytest
import torch
from torch import Tensor

from vaelab.samplers import codebook as module
from vaelab.samplers.codebook import LearnedCodebook

VECTORS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])


def book(vectors: Tensor = VECTORS, usage: Tensor | None = None, **options) -> LearnedCodebook:
    """A codebook with the given vectors, all in equal use."""
    made = LearnedCodebook(num_codes=len(vectors), code_dim=vectors.shape[1], **options)
    made.usage.copy_(torch.full((len(vectors),), 1 / len(vectors)) if usage is None else usage)
    made.vectors.data.copy_(vectors)
    if made.update == "ema":
        made.sums.copy_(made.usage.unsqueeze(1) * vectors)
    return made


def state(made: LearnedCodebook) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in made.state_dict().items()}


@pytest.mark.parametrize("offset", [0.0, 3000.0])
def test_codes_are_those_of_the_nearest_vectors_however_far_from_zero(offset: float) -> None:
    torch.manual_seed(0)
    vectors, inputs = offset + torch.randn(50, 4), offset + torch.randn(3, 7, 4)
    codes = book(vectors).nearest(inputs)
    distances = (inputs.double().unsqueeze(-2) - vectors.double()).square().sum(-1)
    assert torch.equal(codes, distances.argmin(-1))


def test_near_ties_are_told_apart_under_autocast() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(25, 4)
    vectors = torch.cat([vectors, vectors + 1e-2 * torch.randn(25, 4)])  # pairs that bfloat16 takes for one
    made, inputs = book(vectors), vectors[torch.randperm(50)]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(made.embed(made.nearest(inputs)), inputs)


def test_running_means_do_not_stall_in_a_model_of_half_precision() -> None:
    made = book().bfloat16()
    assert {value.dtype for value in made.state_dict().values()} == {torch.float32}
    torch.testing.assert_close(made.vectors, VECTORS, rtol=0, atol=0)
    target = torch.tensor([[0.2, 0.1], [1.2, 0.1], [0.2, 2.1]]).bfloat16()
    for _ in range(600):  # steps of 1 % and less, which bfloat16 would round away
        made(target)
    torch.testing.assert_close(made.vectors, target.float(), rtol=0, atol=0.01)
    assert book(update="gradient").bfloat16().vectors.dtype == torch.bfloat16  # a parameter is the optimizer's
    assert book().double().sums.dtype == torch.float64


def test_running_means_are_those_of_the_paper() -> None:
    torch.manual_seed(0)
    decay, epsilon = 0.9, 1e-3
    made = book(VECTORS.double(), decay=decay, epsilon=epsilon, revive_below=0.0).double()
    number = 8
    # In the paper's counts: N_k, m_k and the Laplace smoothing of N_k.
    counts = [number * u for u in made.usage.tolist()]
    sums = [[number * s for s in row] for row in made.sums.tolist()]
    for _ in range(3):
        inputs = torch.randn(number, 2).double()
        before = made.vectors.clone()
        codes, given = made(inputs)
        assert torch.equal(given, before[codes])  # what is given out does not move with the codebook
        for k in range(3):
            own = [v for v, c in zip(inputs.tolist(), codes.tolist(), strict=True) if c == k]
            counts[k] = decay * counts[k] + (1 - decay) * len(own)
            sums[k] = [decay * s + (1 - decay) * sum(v[i] for v in own) for i, s in enumerate(sums[k])]
        total, eps = sum(counts), epsilon * number
        smoothed = [total * (n + eps) / (total + 3 * eps) for n in counts]
        wanted = torch.tensor([[s / n for s in row] for row, n in zip(sums, smoothed, strict=True)]).double()
        torch.testing.assert_close(made.vectors, wanted, atol=1e-6, rtol=1e-6)


def test_a_batch_twice_as_large_moves_the_codebook_alike() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(9, 2)
    once, twice = book(revive_below=0.0), book(revive_below=0.0)
    once(inputs), twice(inputs.repeat(2, 1))
    torch.testing.assert_close(twice.state_dict(), once.state_dict())
    assert (once.vectors - VECTORS).abs().max() > 1e-3


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_nothing_changes_outside_of_training(update: str) -> None:
    torch.manual_seed(0)
    made = LearnedCodebook(num_codes=3, code_dim=2, update=update)
    before, noise = state(made), torch.get_rng_state()
    made.eval()(torch.ones(5, 2))
    with torch.no_grad():
        made.train()(torch.ones(5, 2))
    torch.testing.assert_close(made.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), noise)


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_the_first_batch_places_the_codebook_on_different_inputs(update: str) -> None:
    torch.manual_seed(0)
    made = LearnedCodebook(num_codes=5, code_dim=2, update=update, revive_below=0.0)
    inputs = torch.randn(20, 2)
    codes, vectors = made(inputs)  # of the codebook as it was placed, before it learns
    owners = {tuple(v.tolist()) for v in vectors}
    assert len(owners) == len(codes.unique()) == 5
    assert owners <= {tuple(v.tolist()) for v in inputs}


def test_a_batch_with_fewer_inputs_than_codes_places_all_of_them() -> None:
    torch.manual_seed(0)
    made = LearnedCodebook(num_codes=7, code_dim=2, update="gradient")
    inputs = torch.randn(3, 2)
    made.revive(inputs)
    owners = {(inputs == v).all(1).nonzero().item() for v in made.vectors}
    assert owners == {0, 1, 2}


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_only_dead_codes_are_put_on_inputs(update: str) -> None:
    torch.manual_seed(0)
    usage = torch.tensor([0.5, 0.03, 0.47])
    inputs = 10 + torch.randn(6, 2)
    alive = book(usage=usage, update=update, revive_below=0.08)  # dead below 0.08 / 3 = 0.027
    alive.revive(inputs)
    assert torch.equal(alive.vectors, VECTORS)
    assert torch.equal(alive.usage, usage)
    dead = book(usage=usage, update=update, revive_below=0.1)  # dead below 0.033
    dead.revive(inputs)
    assert torch.equal(dead.vectors[[0, 2]], VECTORS[[0, 2]])
    assert (inputs == dead.vectors[1]).all(1).any()
    torch.testing.assert_close(dead.usage, torch.tensor([0.5, 1 / 3, 0.47]))
    if update == "ema":
        torch.testing.assert_close(dead.sums / dead.usage.unsqueeze(1), dead.vectors.data)


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_a_code_that_is_never_chosen_is_revived_after_as_many_batches_as_the_decay_says(update: str) -> None:
    torch.manual_seed(0)
    made = book(update=update, decay=0.8, revive_below=0.1)  # 0.8^10 > 0.1 > 0.8^11
    inputs = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    revived = []
    for _ in range(13):
        made(inputs)
        revived.append((inputs - made.vectors[2]).norm(dim=1).min().item() < 0.1)
    assert revived == [False] * 11 + [True] * 2


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_a_stored_codebook_goes_on_exactly(update: str) -> None:
    torch.manual_seed(0)
    made = LearnedCodebook(num_codes=6, code_dim=2, update=update, decay=0.5, revive_below=0.5)
    batches = torch.randn(8, 10, 2)
    for inputs in batches[:4]:
        made(inputs)
    stored, noise = state(made), torch.get_rng_state()
    for inputs in batches[4:]:
        made(inputs)
    resumed = LearnedCodebook(num_codes=6, code_dim=2, update=update, decay=0.5, revive_below=0.5)
    resumed.load_state_dict(stored)
    torch.set_rng_state(noise)
    for inputs in batches[4:]:
        resumed(inputs)
    torch.testing.assert_close(resumed.state_dict(), made.state_dict(), rtol=0, atol=0)
    assert (made.vectors - stored["vectors"]).abs().max() > 1e-3


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_no_code_is_revived_if_none_shall_be_however_short_the_memory(decay: float) -> None:
    torch.manual_seed(0)
    made = LearnedCodebook(num_codes=3, code_dim=2, update="gradient", decay=decay, revive_below=0)
    made(torch.randn(20, 2))
    placed = made.vectors.detach().clone()
    for _ in range(200):
        made(placed[:1])
    assert made.usage[1:].sum() == 0
    assert torch.equal(made.vectors, placed)


class Ranks:
    """Two threads that stand for two processes."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2, timeout=30)
        self.shared: dict[int, Tensor] = {}

    def run(self, work, *arguments) -> None:
        threads = [threading.Thread(target=self._run, args=(rank, work, arguments[rank])) for rank in range(2)]
        [t.start() for t in threads], [t.join() for t in threads]

    def _run(self, rank: int, work, argument) -> None:
        threading.current_thread().name = str(rank)
        work(argument)

    def gather(self, value: Tensor) -> list[Tensor]:
        self.shared[int(threading.current_thread().name)] = value.clone()
        self.barrier.wait()
        values = [self.shared[0], self.shared[1]]
        self.barrier.wait()
        return values

    def all_reduce(self, value: Tensor) -> None:
        value.copy_(sum(self.gather(value)))

    def broadcast(self, value: Tensor, source: int) -> None:
        value.copy_(self.gather(value)[source])


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_processes_agree_and_learn_from_all_inputs(update: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = Ranks()
    torch.manual_seed(0)
    options = dict(num_codes=6, code_dim=2, update=update, decay=0.5, revive_below=0.5)
    first = LearnedCodebook(**options)
    second, alone = copy.deepcopy(first), copy.deepcopy(first)
    inputs = torch.randn(4, 2, 8, 2)  # steps, ranks, inputs
    with monkeypatch.context() as patch:
        patch.setattr(module, "several_processes", lambda: True)
        patch.setattr(module.distributed, "all_reduce", ranks.all_reduce)
        patch.setattr(module.distributed, "broadcast", ranks.broadcast)
        for step in inputs:
            ranks.run(lambda pair: pair[0](pair[1]), (first, step[0]), (second, step[1]))
    torch.testing.assert_close(second.state_dict(), first.state_dict(), rtol=0, atol=0)
    alone.load_state_dict(first.state_dict())
    alone.revive_below = first.revive_below = second.revive_below = 0.0
    step = torch.randn(2, 8, 2)
    with monkeypatch.context() as patch:
        patch.setattr(module, "several_processes", lambda: True)
        patch.setattr(module.distributed, "all_reduce", ranks.all_reduce)
        patch.setattr(module.distributed, "broadcast", ranks.broadcast)
        ranks.run(lambda pair: pair[0](pair[1]), (first, step[0]), (second, step[1]))
    alone(step.flatten(0, 1))
    torch.testing.assert_close(first.state_dict(), alone.state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"update": "mean"}, "update must be one of ema, gradient, but is 'mean'"),
        ({"decay": 1.0}, r"decay must lie in \[0, 1\), but is 1.0"),
        ({"epsilon": 0.0}, "epsilon must be a number above 0"),
        ({"revive_below": -1.0}, "revive_below must be a number of at least 0"),
    ],
)
def test_values_out_of_range_are_refused(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LearnedCodebook(num_codes=2, code_dim=2, **options)
