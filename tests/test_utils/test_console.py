"""What a run prints, and what only its log file holds."""
from mmblockdrop.utils.console import ConsoleRunner

import toy


def test_long_messages_go_into_the_file_alone(tmp_path, capsys):
    cfg = toy.config(tmp_path / 'run', log_level='INFO')
    cfg.experiment_name = 'console'
    cfg.optim_wrapper.optimizer.weight_decay = .1
    cfg.optim_wrapper.paramwise_cfg = dict(norm_decay_mult=0.)
    runner = ConsoleRunner.from_cfg(cfg)
    runner.build_optim_wrapper(cfg.optim_wrapper)
    runner.logger.info('a short message')
    output = capsys.readouterr()
    log, = (tmp_path / 'run').rglob('*.log')
    for text in ('System environment:', 'Config:', 'Hooks will be executed',
                 'paramwise_options'):
        assert text in log.read_text()
        assert text not in output.out + output.err
    assert 'a short message' in output.out + output.err
    assert str(log) in output.out + output.err
