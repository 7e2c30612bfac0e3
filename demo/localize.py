"""The program is ``tools/localize.py``; the old command keeps working."""
import runpy
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[1] / 'tools'

if __name__ == '__main__':
    runpy.run_path(str(TOOLS / 'localize.py'), run_name='__main__')
