"A detector on each transformer family, from folders that diffusers' own save_pretrained wrote."

import io
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, PixArtAlphaPipeline, PixArtSigmaPipeline
from huggingface_hub import constants
from PIL import Image

from hybridad.bench.check_backbone import keep_choice
from hybridad.cli import hybridad
from hybridad.config import READOUTS, get_default_config
from hybridad.data.layouts import read_dataset
from hybridad.errors import BackboneError, ConfigError
from hybridad.models import families
from hybridad.models.attention import log_ratio
from hybridad.models.backbone import load_backbone
from hybridad.models.detector import HybridAnomalyDetector
from hybridad.models.families import TransformerBackbone
from hybridad.models.features import FeatureCache
from hybridad.models.parts import MINI
from hybridad.models.pipeline import EasonADPipeline
from hybridad.models.recorder import Recorder, probabilities
from hybridad.models.tiny import TINY, stock_attention, tiny_pipeline
from hybridad.studies.protocol import protocol, protocol_table
from hybridad.training.step import Step

FAMILIES = [f for f in TINY if f != 'unet']
VARIANTS = {
    'pixart-alpha': (
        'pixart',
        dict(sample_size=128, attention_head_dim=12, cross_attention_dim=24),
    ),
    'pixart-sigma': ('pixart', {}),
    'sd3.0': ('sd3', dict(qk_norm=None, dual_attention_layers=())),
    'sd3-wide-heads': ('sd3', dict(attention_head_dim=24, caption_projection_dim=48)),
    'flux-schnell': ('flux', dict(guidance_embeds=False)),
    'flux-wide-heads': ('flux', dict(attention_head_dim=24, axes_dims_rope=(4, 10, 10))),
}  # what TINY lacks: alpha is told the size of the image, which follows from 128
every_variant = pytest.mark.parametrize('folder', [*FAMILIES, *VARIANTS], indirect=True)
SIZE = 32  # px
WORDS = ['a photo of a flawless object', 'a damaged object']


def test_a_tokenizer_that_is_a_spiece_model_as_pixart_ships_it(tmp_path, monkeypatch):
    spm = pytest.importorskip('sentencepiece', reason="pip install 'hybridad[t5]'")
    pipe = tiny_pipeline('pixart')
    pipe.save_pretrained(tmp_path)
    place = tmp_path / 'tokenizer'
    shutil.rmtree(place)
    place.mkdir()
    texts = ['a bad cab', 'a cab', 'bad', 'dab a cab']  # few letters: it knows 16 pieces
    most = pipe.text_encoder.config.vocab_size
    content = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=content,
        vocab_size=most,
        hard_vocab_limit=False,
        minloglevel=2,
        **dict(pad_id=0, eos_id=1, unk_id=2, bos_id=-1),
    )
    (place / 'spiece.model').write_bytes(content.getvalue())
    about = dict(tokenizer_class='T5Tokenizer', extra_ids=0)
    (place / 'tokenizer_config.json').write_text(json.dumps(about))
    index = json.loads((tmp_path / 'model_index.json').read_text())
    index = json.dumps(index | dict(tokenizer=['transformers', 'T5Tokenizer']))
    (tmp_path / 'model_index.json').write_text(index)
    ids = load_backbone(str(tmp_path), 'cpu').towers[0][0]('a bad cab').input_ids
    assert max(ids) < most and ids[-1] == 1
    (place / 'spiece.model').write_bytes(b'no model')
    monkeypatch.setattr(families, 'find_spec', lambda name: None)
    with pytest.raises(BackboneError, match=r"'tokenizer' could not .*hybridad\[t5\]"):
        load_backbone(str(tmp_path), 'cpu')


@pytest.fixture(scope='module', params=FAMILIES)
def folder(request, tmp_path_factory):
    "A tiny random pipeline of a family or variant, saved as users have them."
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp('pipes') / request.param
    family, changes = VARIANTS.get(request.param, (request.param, {}))
    pipe = tiny_pipeline(family, **changes)
    if request.param == 'pixart-sigma':  # a pipeline of its own, with more tokens
        pipe = PixArtSigmaPipeline(**pipe.components)
    pipe.save_pretrained(place)
    return place


@pytest.fixture(scope='module')
def backbone(folder):
    return load_backbone(folder, 'cpu')


def detector_of(backbone, **changes):
    how = dict(n_ctx=4, depth=3, t_n_ctx=2, map_size=8, image_size=SIZE, timestep=50)
    return HybridAnomalyDetector(get_default_config(**(how | changes)), backbone)


def images_of(count):
    g = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, SIZE, SIZE, generator=g) * 2 - 1


def hooks_on(backbone):
    found = [h for m in backbone.modules for h in m.modules()]
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in found)


@every_variant
@pytest.mark.parametrize('readout', READOUTS)
def test_gradients_reach_every_learnable_tensor_and_nothing_stays(backbone, readout):
    before = hooks_on(backbone)  # transformers 5 leaves hooks of its own on CLIP with projection
    detector = detector_of(backbone, readout=readout)
    out = detector(images_of(2), mode='train')
    (out['logits'].square().mean() + out['image_scores'].sum()).backward()
    for name, p in detector.named_parameters():
        assert p.grad is not None and p.grad.abs().sum() > 0, name
    for name, p in detector.prompts.named_parameters():  # each vector of each of them
        assert (p.grad.abs().sum(-1) > 0).all(), name
    assert hooks_on(backbone) == before
    assert all(p.grad is None for m in backbone.modules for p in m.parameters())


@every_variant
@pytest.mark.parametrize('readout', READOUTS)
def test_a_batch_of_five_is_five_of_one(backbone, readout):
    pipeline = EasonADPipeline(backbone, readout, timestep=50, map_size=8)
    images = images_of(5)
    with torch.no_grad():
        whole = pipeline(images, WORDS)
        apart = torch.cat([pipeline(i[None], WORDS) for i in images])
    assert torch.allclose(whole, apart, atol=1e-5)
    assert log_ratio(whole).std() > 0


def masses_by_hand(backbone, latents, timestep):
    "Log masses from what PyTorch's own attention is given in the layers, exact."
    features, masks = backbone.encode_text(WORDS), backbone.token_mask(WORDS)
    views, found = backbone.layers, []
    modules = {n: v.module for n, v in views.items()}
    for one, mask in zip(features, masks):
        with torch.no_grad(), stock_attention(modules) as given:
            text = backbone.text_of(one[None])
            more = backbone.conditions(latents)
            text = text._replace(pooled=more.pop('pooled', None))
            backbone.family.call(backbone.transformer, latents, timestep, text, **more)
        found.append({n: group_scores(backbone, *given[n], mask) for n in views})
    layers = [torch.stack([f[n] for f in found], 1) for n in views]  # each (1, P, heads, N)
    return sum((x - x.logsumexp(1, keepdim=True)).mean(2) for x in layers) / len(layers)


def group_scores(backbone, query, key, bias, mask):
    "Log of the summed exponentials of the scores of counted tokens, for each image position."
    tokens, text_first = len(mask), type(backbone.transformer).__name__.startswith('Flux')
    if backbone.joint:
        where = slice(tokens, None) if text_first else slice(-tokens)
        query = query[..., where, :]
        key = key[..., :tokens, :] if text_first else key[..., -tokens:, :]
    scores = (query @ key.mT) * query.shape[-1] ** -0.5
    return scores[..., mask].logsumexp(-1)


@every_variant
def test_exact_masses_are_those_of_the_stock_attention(backbone):
    latents = torch.randn(1, backbone.vae.config.latent_channels, 16, 16)
    pipeline = EasonADPipeline(backbone, 'exact', timestep=50, map_size=8, noise=False)
    with torch.no_grad():
        features = backbone.encode_text(WORDS)
        ours = pipeline.masses(
            pipeline.queries(latents, features), features, content=backbone.token_mask(WORDS)
        )
    wanted = masses_by_hand(backbone, latents, 50)
    side = int(wanted.shape[-1] ** 0.5)
    wanted = torch.nn.functional.interpolate(
        wanted.unflatten(-1, (side, side)), size=(8, 8), mode='bilinear', align_corners=False
    )
    assert torch.allclose(ours.exp(), wanted.exp(), rtol=0, atol=1e-6)


def test_maps_are_those_of_attention_map_diffusers(folder, backbone):
    "Where it is installed, with all heads; it leaves out the single stream of FLUX."
    peer = pytest.importorskip('attention_map_diffusers')
    latents = torch.randn(1, backbone.vae.config.latent_channels, 16, 16)
    more = backbone.conditions(latents)
    text = backbone.text_of(backbone.encode_text(WORDS[:1]), more.pop('pooled', None))
    with torch.no_grad(), Recorder(backbone.transformer, reduce=probabilities) as recorder:
        ours = recorder.run(latents, 50, text, **more)
    pipe = SimpleNamespace(transformer=backbone.transformer)
    how = dict(relations='image->text', heads='all', mode='exact')
    with torch.no_grad(), peer.AttentionCapture(pipe, **how) as capture:
        backbone.family.call(backbone.transformer, latents, 50, text, **more)
        theirs = {r.layer_id.removeprefix('transformer.'): r.data for r in capture.records}
    assert theirs and set(theirs) == {n for n in ours if not n.startswith('single_')}
    for name, maps in theirs.items():
        assert torch.allclose(ours[name], maps, atol=1e-6), name


@every_variant
def test_outputs_under_the_reader_are_the_stock_outputs(backbone):
    latents = torch.randn(1, backbone.vae.config.latent_channels, 16, 16)
    more = backbone.conditions(latents)
    text = backbone.text_of(backbone.encode_text(WORDS[:1]), more.pop('pooled', None))
    with torch.no_grad():
        plain = backbone.family.call(backbone.transformer, latents, 50, text, **more)
        with backbone.recorder(list(backbone.select()), keys=True):
            read = backbone.family.call(backbone.transformer, latents, 50, text, **more)
    assert torch.equal(plain.sample, read.sample)


@pytest.mark.parametrize('folder', ['pixart-alpha'], indirect=True)
def test_the_size_of_the_image_is_told_as_the_pipeline_tells_it(folder, backbone):
    pipe, told = PixArtAlphaPipeline.from_pretrained(folder, scheduler=DDIMScheduler()), []
    pipe.set_progress_bar_config(disable=True)
    pipe.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: told.append(kwargs['added_cond_kwargs']), with_kwargs=True
    )
    how = dict(num_inference_steps=1, guidance_scale=1, clean_caption=False, output_type='latent')
    latents = pipe(WORDS[0], height=32, width=48, use_resolution_binning=False, **how).images
    with torch.no_grad():
        text = backbone.text_of(backbone.encode_text(WORDS[:1]))
        more = backbone.conditions(latents)
        backbone.family.call(pipe.transformer, latents, 50, text, **more)
    theirs, ours = told
    assert theirs['resolution'].tolist() == [[32, 48]]
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name


def test_a_step_learns_and_micro_batches_change_nothing(backbone, tmp_path):
    samples = [s for s in read_dataset(dataset(tmp_path)) if s.split == 'test']
    after = []
    for accumulate in (1, 2):
        detector = detector_of(backbone, views=2)
        train = FeatureCache(detector, samples, progress=False)
        before = detector.prompts.ctx_normal.detach().clone()
        Step(detector, train, 10, accumulate=accumulate)(torch.arange(4))
        assert not torch.equal(before, detector.prompts.ctx_normal)
        after.append(detector.prompts.ctx_normal.detach())
    assert torch.allclose(*after, atol=1e-5)


def dataset(place, seed=0):
    "An MVTec-like category of ten images."
    rng = np.random.default_rng(seed)
    for split, kind, count in (('train', 'good', 4), ('test', 'good', 3), ('test', 'hole', 3)):
        for i in range(count):
            file = place / 'set' / 'thing' / split / kind / f'{i}.png'
            file.parent.mkdir(parents=True, exist_ok=True)
            image = rng.integers(100, 130, (SIZE, SIZE, 3), dtype=np.uint8)
            if kind == 'hole':
                image[8:16, 8:16] = 0
                mask = np.zeros((SIZE, SIZE), np.uint8)
                mask[8:16, 8:16] = 255
                truth = place / 'set' / 'thing' / 'ground_truth' / kind / f'{i}_mask.png'
                truth.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(truth)
            Image.fromarray(image).save(file)
    return place / 'set'


def test_commands_take_the_folder(folder, tmp_path):
    data, run = str(dataset(tmp_path)), tmp_path / 'run'
    cpu = ['--device', 'cpu']
    how = ['--backbone', str(folder), '--epochs', '1', '--image_size', str(SIZE), '--layers', '1']
    assert hybridad(['train', data, '--out', str(run), *how, *cpu]) == 0
    prompts = ['--checkpoint_path', str(run / 'best.safetensors'), *cpu]
    seen = ['--allow_seen', '--out', str(tmp_path / 'test')]
    assert hybridad(['test', data, *prompts, *seen]) == 0
    assert (tmp_path / 'test' / 'metrics.json').is_file()
    image, out = f'{data}/thing/test/hole/0.png', str(tmp_path / 'scores')
    assert hybridad(['score', image, *prompts, '--out', out]) == 0
    detector, about = HybridAnomalyDetector.from_checkpoint(run / 'best.safetensors', device='cpu')
    assert about['layers'] == list(detector.backbone.select(['1']))


def test_a_protocol_says_why_it_has_no_random_backbone(tmp_path):
    tiny_pipeline(FAMILIES[0]).save_pretrained(tmp_path / 'pipe')
    learn, score = (
        [s for s in read_dataset(dataset(tmp_path / n, i)) if s.split == 'test']
        for i, n in enumerate(('learn', 'score'))
    )
    small = dict(image_size=SIZE, eval_size=SIZE, map_size=8, layers=['1'], device='cpu')
    config = get_default_config(backbone=str(tmp_path / 'pipe'), epochs=0, **small)
    found = protocol(learn, dict(other=score), tmp_path / 'run', config=config, progress=False)
    floors = found['other']['floors']
    assert floors['random_backbone'] is None and 0 <= floors['words']['aupro'] <= 1
    table = protocol_table(found)
    assert 'no random backbone: random weights are drawn for the UNet' in table
    assert 'baseline: random' not in table and 'baseline: words' in table


def test_refusals_name_what_is_wrong(folder, backbone, tmp_path):
    with pytest.raises(BackboneError, match='reads UNets only'):
        print(backbone.unet)
    with pytest.raises(ConfigError, match='choose depths from 0 to'):
        backbone.select(['99'])
    broken = shutil.copytree(folder, tmp_path / 'broken')
    index = json.loads((broken / 'model_index.json').read_text())
    part = 'text_encoder'
    index[part] = [None, None]
    (broken / 'model_index.json').write_text(json.dumps(index))
    with pytest.raises(BackboneError, match=f"'{part}' is left out"):
        load_backbone(broken, 'cpu')
    if backbone.masked:
        with pytest.raises(ConfigError, match='hides from its'):
            EasonADPipeline(backbone, mass='own')


def saved_with(folder, place, **changes):
    "A copy of a pipeline folder with changes of the index, or of the transformer's config."
    copied = shutil.copytree(folder, place)
    index = copied / 'model_index.json'
    told = json.loads(index.read_text()) | changes.get('index', {})
    index.write_text(json.dumps(told))
    config = copied / 'transformer' / 'config.json'
    config.write_text(json.dumps(json.loads(config.read_text()) | changes.get('transformer', {})))
    return copied


def refused_by_the_command(backbone, tmp_path, capsys):
    "The one sentence of a command that ends with 2 and leaves nothing behind."
    out = tmp_path / 'out'
    how = ['--backbone', str(backbone), '--device', 'cpu', '--image_size', str(SIZE)]
    assert hybridad(['train', str(dataset(tmp_path)), '--out', str(out), *how]) == 2
    assert not out.exists()
    return capsys.readouterr().err


def test_a_pipeline_of_another_class_is_refused(folder, tmp_path, capsys):
    other = saved_with(folder, tmp_path / 'other', index=dict(_class_name='HunyuanDiTPipeline'))
    said = refused_by_the_command(other, tmp_path, capsys)
    assert 'HunyuanDiTPipeline' in said and 'PixArtAlphaPipeline' in said


def test_quantised_weights_are_refused(folder, tmp_path, capsys):
    told = dict(quantization_config=dict(quant_method='bitsandbytes', load_in_4bit=True))
    low = saved_with(folder, tmp_path / 'low', transformer=told)
    said = refused_by_the_command(low, tmp_path, capsys)
    assert "part 'transformer' is quantised" in said and 'bfloat16' in said
    loaded = load_backbone(folder, 'cpu').transformer
    loaded.proj_out.weight = torch.nn.Parameter(
        loaded.proj_out.weight.to(torch.int8), requires_grad=False
    )
    with pytest.raises(BackboneError, match='is quantised in proj_out'):
        Recorder(loaded)


@pytest.mark.filterwarnings('ignore:torch')
@pytest.mark.parametrize('part', ['transformer', 'text_encoder'])
def test_dynamic_quantisation_is_refused(folder, part):
    parts = dict(tiny_pipeline(folder.name).components)
    torch.ao.quantization.quantize_dynamic(parts[part], {torch.nn.Linear}, inplace=True)
    with pytest.raises(BackboneError, match=f'{type(parts[part]).__name__} is quantised in '):
        EasonADPipeline(TransformerBackbone('changed', parts, 24), timestep=50)


def test_a_missing_shard_is_named(folder, tmp_path, capsys):
    lost = shutil.copytree(folder, tmp_path / 'lost')
    weights = lost / 'transformer' / 'diffusion_pytorch_model.safetensors'
    weights.rename(weights.with_name('diffusion_pytorch_model-00001-of-00002.safetensors'))
    parts = {'a.weight': f'{weights.stem}-00001-of-00002.safetensors'}
    parts |= {'b.weight': f'{weights.stem}-00002-of-00002.safetensors'}
    index = weights.with_name('diffusion_pytorch_model.safetensors.index.json')
    index.write_text(json.dumps(dict(metadata={}, weight_map=parts)))
    said = refused_by_the_command(lost, tmp_path, capsys)
    assert "part 'transformer' lacks" in said and '00002-of-00002' in said


def test_compiled_and_fused_transformers_are_refused(folder):
    model = load_backbone(folder, 'cpu').transformer
    with pytest.raises(BackboneError, match='is compiled'):
        Recorder(torch.compile(model, backend='eager'))
    model.compile(backend='eager')
    with pytest.raises(BackboneError, match='is compiled'):
        Recorder(model)
    model = load_backbone(folder, 'cpu').transformer
    model.fuse_qkv_projections()  # of Sana it touches nothing, as its layers are of another class
    if type(model).__name__.startswith('Sana'):
        assert not any(hasattr(m, 'to_qkv') or hasattr(m, 'to_kv') for m in model.modules())
    else:
        with pytest.raises(BackboneError, match='unfuse_qkv_projections'):
            Recorder(model)


def test_a_compiled_text_encoder_is_refused(folder):
    fresh = load_backbone(folder, 'cpu')
    embeddings, deep = fresh.embed(WORDS), [torch.ones(2, fresh.width)]
    encoder = fresh.text.towers[-1].encoder
    encoder.compile(backend='eager')
    with pytest.raises(BackboneError, match=f'{type(encoder).__name__} is compiled'):
        fresh.encode_embeddings(embeddings, deep)


def test_an_image_whose_patches_do_not_fit_is_refused(backbone):
    odd = torch.full((1, 3, SIZE, SIZE + backbone.factor), -0.5)
    patch = getattr(backbone.transformer.config, 'patch_size', 1)
    if type(backbone.transformer).__name__.startswith('Flux'):
        patch = 2
    if patch > 1:
        with pytest.raises(ConfigError, match='another image size'):
            EasonADPipeline(backbone, timestep=50)(odd, WORDS)
    with pytest.raises(ConfigError, match='no multiple of'):
        EasonADPipeline(backbone, timestep=50)(odd[..., :-1], WORDS)


def test_a_photograph_that_is_not_square_fits_the_patches(backbone):
    detector = detector_of(backbone)
    for size in ((480, 640), (200, 300), (400, 200)):
        height, width = detector.fit(size)
        images = torch.linspace(-1, 1, 3 * height * width).view(1, 3, height, width)
        with torch.no_grad():
            assert height != width and detector(images)['logits'].isfinite().all()


def test_check_backbone_takes_half_precision_files_and_stays_offline(tmp_path, capsys):
    torch.manual_seed(0)
    place = tmp_path / 'half'
    tiny_pipeline('pixart').to(torch.float16).save_pretrained(place, variant='fp16')
    assert (place / 'transformer' / 'diffusion_pytorch_model.fp16.safetensors').is_file()
    how = ['--offline', '--device', 'cpu']
    small = ['--size', str(SIZE), '--seconds', '0.1']
    assert hybridad(['check-backbone', str(place), *how, *small]) == 0
    said = capsys.readouterr().out
    assert said.startswith('about') and '12 drawn pictures' in said.splitlines()[0]
    assert 'nothing localises' in said and 'by mass: competing' in said
    asked = ['check-backbone', 'nobody/nothing', '--revision', 'abc', *how]
    assert hybridad(asked) == 2
    said = capsys.readouterr().err
    assert "'nobody/nothing' at revision abc is not on this machine" in said
    assert 'PixArt' in said and "'unet'" not in said


@pytest.fixture
def hub(tmp_path, monkeypatch):
    "A cache of the Hub to fill: a folder as both revisions, v1 and v2, of owner/model."
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
    monkeypatch.setenv('XDG_CONFIG_HOME', str(tmp_path / 'settings'))
    place = tmp_path / 'hub' / 'models--owner--model'

    def fill(folder):
        shutil.copytree(folder, place / 'snapshots' / ('0' * 40))
        (place / 'refs').mkdir()
        for name in ('main', 'v1', 'v2'):
            (place / 'refs' / name).write_text('0' * 40)

    return fill


def steps_of(*names):
    "The timestep of each backbone by its name."
    return [load_backbone(n, 'cpu', local_files_only=True).timestep for n in names]


def test_a_choice_that_is_kept_belongs_to_a_revision(hub, tmp_path):
    hub(MINI)
    how = ['--offline', '--device', 'cpu', '--size', '64', '--seconds', '0.1', '--write']
    assert hybridad(['check-backbone', 'owner/model', '--revision', 'v1', *how]) == 0
    (kept,) = (tmp_path / 'settings' / 'hybridad' / 'backbones').iterdir()
    kept.write_text(json.dumps(json.loads(kept.read_text()) | dict(timestep=7)))
    assert steps_of('owner/model@v1', 'owner/model@v2', 'owner/model') == [7, 100, 100]
    again = load_backbone('owner/model@v2', 'cpu', revision='v1', local_files_only=True)
    assert again.timestep == 7


def test_a_transformer_finds_the_choice_of_its_revision(hub, tmp_path):
    tiny_pipeline('pixart').save_pretrained(tmp_path / 'pixart')
    hub(tmp_path / 'pixart')
    layers = list(load_backbone('owner/model@v1', 'cpu', local_files_only=True).layers)
    choice = dict(timestep=7, layers=layers, mass='content')
    report = dict(verdict='nouns are localised well', proposed=choice, stays=False)
    keep_choice('owner/model', report, revision='v1')
    keep_choice('owner/model', report | dict(proposed=choice | dict(timestep=9)))
    assert steps_of('owner/model@v1', 'owner/model@v2', 'owner/model') == [7, 100, 9]
