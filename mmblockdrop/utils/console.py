"""Keep the console of a run short; the log file has everything."""
import logging
from typing import Any

from mmengine.logging import MMLogger
from mmengine.runner import Runner

#: How messages begin that are for the log file alone.
FILE_ONLY = ('System environment', 'Config:', 'Hooks will be executed',
             'paramwise_options')
#: How messages end that mmengine gives once per frozen parameter.
FROZEN = 'is skipped since its requires_grad=False'


class ConsoleFilter(logging.Filter):
    """Leaves out environment, config, hooks and options of parameters."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a message is shown."""
        text = record.getMessage().lstrip('\n-')
        return not (text.startswith(FILE_ONLY) or text.endswith(FROZEN))


class ConsoleRunner(Runner):
    """Runner of the programs: what fills pages goes into the log file alone.
    """

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build the logger; see :meth:`mmengine.runner.Runner.build_logger`.
        """
        logger = super().build_logger(*args, **kwargs)
        files = [h.baseFilename for h in logger.handlers
                 if isinstance(h, logging.FileHandler)]
        for handler in logger.handlers:
            if files and not isinstance(handler, logging.FileHandler):
                handler.addFilter(ConsoleFilter())
        if files:
            logger.info(f'Environment, config and hooks are in {files[0]}')
        return logger
