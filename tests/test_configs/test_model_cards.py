"""What metafiles and model cards say about the configs."""
import pytest
import yaml
from config_kit import PUBLIC, ROOT


@pytest.mark.parametrize('folder', PUBLIC)
def test_a_metafile_lists_the_configs_and_nothing_else(folder):
    content = yaml.safe_load(
        (ROOT / 'configs' / folder / 'metafile.yml').read_text())
    collections = {c['Name'] for c in content['Collections']}
    for collection in content['Collections']:
        assert (ROOT / collection['README']).is_file()
    configs = [
        f'configs/{folder}/{path.name}'
        for path in sorted((ROOT / 'configs' / folder).glob('*.py'))
    ]
    assert [model['Config'] for model in content['Models']] == configs
    for model in content['Models']:
        assert model['Config'].endswith(f"/{model['Name']}.py")
        assert model['In Collection'] in collections
        assert not {'Weights', 'Results'} & set(model)


def paper_rows(folder):
    """Rows of a card's table of results as dictionaries."""
    card = (ROOT / 'configs' / folder / 'README.md').read_text()
    section = card.split("## The paper's results")[1].split('\n## ')[0]
    assert "**the paper's, not ours**" in section
    lines = [line for line in section.splitlines() if line.startswith('|')]
    heads, _, *rows = ([cell.strip() for cell in line.strip('|').split('|')]
                       for line in lines)
    return [dict(zip(heads, row)) for row in rows]


@pytest.mark.parametrize('folder,key', [('thumos14', 'mAP@0.5'),
                                        ('activitynet13', 'mAP')])
def test_results_are_marked_as_the_papers(folder, key):
    rows = paper_rows(folder)
    assert rows and all(0 < float(row[key]) < 100 for row in rows)
    assert {row['Encoder'] for row in rows} <= {'VideoMAE-S', 'VideoMAE-L'}


@pytest.mark.parity
def test_parity_of_the_macs_in_the_card(macs_table):
    known = {(name.split()[0], row['blocks_dropped']): row['paper_gmacs']
             for name, rows in macs_table.items() for row in rows
             if row.get('paper_gmacs') is not None}
    compared = 0
    for row in paper_rows('thumos14'):
        kept, depth = map(int, row['Blocks kept'].split(' of '))
        if (row['Encoder'], depth - kept) in known:
            assert float(row['GMACs']) == pytest.approx(
                known[row['Encoder'], depth - kept], rel=1e-4)
            compared += 1
    assert compared or not known
