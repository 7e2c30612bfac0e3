"""The benchmark of a training step, on a model of a few units."""

import benchmark_training as benchmark
import pytest
import torch

ARGS = ['--size', 'tiny', '--frames', '16', '--pixels', '32', '--repeats',
        '1', '--device', 'cpu']


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    """Measure memory in this process; a new one takes long to begin."""
    torch.set_num_threads(1)
    monkeypatch.setattr(benchmark, 'in_new_process',
                        lambda function, *args: 1 + max(0, function(*args)))


def test_section_is_written(tmp_path):
    page = tmp_path / 'page.md'
    text = benchmark.main([*ARGS, '--with-cp', '--page', str(page)])
    assert text in page.read_text()
    rows = [line for line in text.splitlines() if line.startswith('|')]
    assert len(rows) == 2 + 2 * 2
    assert 'lora' in rows[2] and 'full' in rows[-1] and 'yes' in rows[-1]


def test_both_ways_leave_the_same_gradients():
    args = benchmark.parse_args(ARGS)
    benchmark.quiet()
    batch = benchmark.make_batch(args, 16)
    for mode in ('lora', 'full'):
        found = []
        for way, losses in benchmark.WAYS.items():
            model = benchmark.build(args, 16, mode, False).eval()
            with benchmark.attention_of(way, model):
                sum(v for k, v in losses(model, batch).items()
                    if 'loss' in k).backward()
            found.append({n: p.grad for n, p in model.named_parameters()
                          if p.grad is not None})
            assert all(p.requires_grad for n, p in model.named_parameters()
                       if n in found[-1])
        assert found[0].keys() == found[1].keys()
        frozen = [n for n in found[0] if mode == 'lora' and '.mlp.' in n
                  and 'student.backbone' in n]
        assert not frozen
        for name, value in found[0].items():
            torch.testing.assert_close(
                found[1][name], value, rtol=1e-3, atol=1e-6, msg=name)


def test_steps_that_differ_are_not_compared(monkeypatch):
    args = benchmark.parse_args(ARGS)
    benchmark.quiet()
    model = benchmark.build(args, 16, 'full', False)
    monkeypatch.setitem(
        benchmark.WAYS, 'ours', lambda model, batch: {
            k: v * 1.01 if k == 'loss_align_block' else v
            for k, v in model(**batch, mode='loss').items()
        })
    with pytest.raises(RuntimeError, match='loss_align_block'):
        benchmark.check_same(model, benchmark.make_batch(args, 16))
