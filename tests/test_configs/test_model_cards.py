"""What metafiles and model cards say about the configs."""
import re

import pytest
import yaml
from config_kit import PUBLIC, ROOT


@pytest.fixture(scope='module')
def metafiles():
    return {
        folder: yaml.safe_load(
            (ROOT / 'configs' / folder / 'metafile.yml').read_text())
        for folder in PUBLIC
    }


def test_every_metafile_is_listed(metafiles):
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    listed = set(index['Import'])
    assert listed >= {f'configs/{folder}/metafile.yml' for folder in PUBLIC}
    assert all((ROOT / path).is_file() for path in listed)


@pytest.mark.parametrize('folder', PUBLIC)
def test_every_config_has_its_entry(metafiles, folder):
    content = metafiles[folder]
    collections = {c['Name'] for c in content['Collections']}
    for collection in content['Collections']:
        assert (ROOT / collection['README']).is_file()
    configs = {
        f'configs/{folder}/{path.name}'
        for path in (ROOT / 'configs' / folder).glob('*.py')
    }
    assert {model['Config'] for model in content['Models']} == configs
    assert len(content['Models']) == len(configs)
    for model in content['Models']:
        assert model['Config'].endswith(f"/{model['Name']}.py")
        assert model['In Collection'] in collections
        assert 'Weights' not in model


def paper_results(metafiles):
    for content in metafiles.values():
        for model in content['Models']:
            for result in model.get('Results', ()):
                yield model, result


def test_results_are_marked_as_the_papers(metafiles):
    count = 0
    for model, result in paper_results(metafiles):
        assert model['Name'].startswith('blockdrop_vit-')
        names = set(result['Metrics']) - {'Blocks dropped'}
        assert names and all(name.endswith('(paper)') for name in names)
        count += 1
    assert count
    for folder in ('thumos14', 'activitynet13'):
        card = (ROOT / 'configs' / folder / 'README.md').read_text()
        assert "**the paper's, not ours**" in card
        for model, result in paper_results({folder: metafiles[folder]}):
            map_, = [f'{value:.2f}' for name, value in
                     result['Metrics'].items() if 'mAP' in name]
            assert map_ in card


@pytest.mark.parity
def test_parity_of_the_macs_in_the_metafile(golden, metafiles):
    known = {}
    for name, rows in golden('macs_table.json')['models'].items():
        for row in rows:
            known[name.split()[0], row['blocks_dropped']] = row['paper_gmacs']
    for model, result in paper_results(metafiles):
        dropped = int(result['Metrics']['Blocks dropped'].split()[0])
        key = model['Metadata']['Encoder'], dropped
        if 'GMACs (paper)' in result['Metrics'] and key in known:
            assert result['Metrics']['GMACs (paper)'] == pytest.approx(
                known[key], rel=1e-4)


def test_links_of_the_cards_lead_somewhere():
    for card in (ROOT / 'configs').glob('*/README.md'):
        for link in re.findall(r'\]\(([^)#]+)', card.read_text()):
            if not link.startswith('http'):
                assert (card.parent / link).exists(), f'{card}: {link}'
