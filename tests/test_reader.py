"The reader on each Stable Diffusion family: small models with random weights anywhere, the real sizes where their configs lie in HYBRIDAD_SHARED."

import copy
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel

from hybridad.bench import cases
from hybridad.bench.sizes import SD21
from hybridad.config import READOUTS, get_default_config
from hybridad.errors import BackboneError, CheckpointError, ConfigError
from hybridad.models import backbone as bb
from hybridad.models.attention import QueryRecorder, log_ratio, token_scores
from hybridad.models.backbone import load_backbone, random_backbone
from hybridad.models.detector import HybridAnomalyDetector
from hybridad.models.layers import cross_attention, select_layers
from hybridad.models.parts import MINI
from hybridad.models.pipeline import EasonADPipeline
from hybridad.models.probes import probing
from hybridad.models.prompt_learner import MinimalPromptLearner
from hybridad.models.recorder import Recorder, masses_of
from hybridad.studies.variants import standard_variants
from hybridad.visual.words import nearest_words

ROOT = Path(__file__).resolve().parents[1]
FAMILIES = sorted(p.name for p in (ROOT / 'tests' / 'configs').iterdir())
SHARED = (
    Path(os.environ.get('HYBRIDAD_SHARED', ROOT.parent / 'shared'))
    / 'backbones'
    / 'stable-diffusion-2-1-base-configs'
)
WORDS = ['a photo of a flawless object', 'a photo of a damaged object']


def complete(family, to):
    "The configs of a family with the embedded model's vocabulary and the family's own padding: enough for random_backbone."
    shutil.copytree(ROOT / 'tests' / 'configs' / family, to)
    for pad in to.rglob('pad.json'):
        shutil.copytree(MINI / 'tokenizer', pad.parent, dirs_exist_ok=True)
        config = (
            json.loads((pad.parent / 'tokenizer_config.json').read_text())
            | json.loads(pad.read_text())
            | dict(model_max_length=32)
        )
        (pad.parent / 'tokenizer_config.json').write_text(json.dumps(config))
    return to


def save(model, to):
    "A backbone as a diffusers folder, the way any other is stored."
    for part in (
        'vae',
        'unet',
        'scheduler',
        'text_encoder',
        'tokenizer',
        'text_encoder_2',
        'tokenizer_2',
    ):
        if getattr(model, part) is not None:
            getattr(model, part).save_pretrained(to / part)
    return to


@pytest.fixture(scope='module', params=FAMILIES)
def model(request, tmp_path_factory):
    "A small model of one family, through a folder on disk and the ordinary loader."
    tmp = tmp_path_factory.mktemp(request.param)
    loaded = load_backbone(
        save(random_backbone(complete(request.param, tmp / 'configs')), tmp / 'model'), 'cpu'
    )
    loaded.family = request.param
    return loaded


@pytest.fixture
def inputs(model):
    "Latents, text features and what else the UNet wants."
    g = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 16, 16, generator=g)
    return latents, 10, model.encode_text(WORDS), model.conditions(latents)


def call(unet, inputs):
    return unet(*inputs[:3], **inputs[3]).sample


def config(family, **changes):
    return (
        json.loads((ROOT / 'tests' / 'configs' / family / 'unet' / 'config.json').read_text())
        | changes
    )


def hooks_on(unet):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in unet.modules())


def test_facts_are_read_from_the_model(model):
    told, end = model.describe(), '<|endoftext|>'
    assert told['heads'] == [m.heads for m in cross_attention(model.unet).values()]
    assert (
        told['padding']
        == dict(sd1=[end], sd2=['!'], bk_sdm_tiny=['!'], sdxl=[end, '!'])[model.family]
    )
    assert told['prediction'] == ('v_prediction' if model.family == 'sd2' else 'epsilon')
    assert told['scaling'] == (0.13025 if model.family == 'sdxl' else 0.18215)
    assert len(set(told['heads'])) == (
        1 if model.family == 'sd1' else 2 if model.family == 'sdxl' else 3
    )
    assert (
        told['width'] == model.unet.config.cross_attention_dim == model.encode_text(WORDS).shape[-1]
    )
    for i in range(len(model.towers)):
        ids = model.tokenize(WORDS, i)
        assert (ids[:, -1] == told['padding_id'][i]).all()


def test_text_from_embeddings_is_the_text_encoder(model):
    assert torch.equal(model.encode_embeddings(model.embed(WORDS)), model.encode_text(WORDS))
    with pytest.raises(ConfigError, match='32 positions'):
        model.encode_embeddings(torch.zeros(1, 40, model.width))


def test_every_deep_prompt_learns(model):
    learner = MinimalPromptLearner(model)
    assert len(learner.compound) == model.depth - 1
    prompts = model.encode_embeddings(*learner())
    pipeline = EasonADPipeline(model, 'exact')
    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    tokens = learner.counted(pipeline.mass)
    log_ratio(
        pipeline.masses(pipeline.queries(latents, prompts), prompts, content=tokens)
    ).square().mean().backward()
    assert all(p.grad.abs().sum() > 0 for p in learner.parameters())
    learner.start_from(model, 'object', 'damaged object')
    assert all(p.isfinite().all() for p in learner.parameters())


@pytest.mark.parametrize('mass', ('competing', 'content', 'own', 'competing_all'))
@pytest.mark.parametrize('readout', ('replay', 'exact', 'joint'))
def test_only_the_tokens_that_count_are_read(model, mass, readout):
    "Strings and features give the same maps, for any number of prompts; padding and start token change nothing."
    pipeline, texts = EasonADPipeline(model, readout, mass=mass, map_size=8), [*WORDS, 'a hole!']
    g = torch.Generator().manual_seed(5)
    latents, features = torch.randn(1, 4, 16, 16, generator=g), model.encode_text(texts)
    with torch.no_grad():
        queries = pipeline.queries(latents, features)
        maps = pipeline.prompt_masses(queries, texts)
        told = pipeline.tokens(texts)
        assert torch.equal(maps, pipeline.masses(queries, features, content=told))
        assert maps.shape == (1, 3, 8, 8) and maps.isfinite().all()
        if mass in ('competing', 'competing_all'):
            assert (
                EasonADPipeline(model, readout, mass=mass)
                .prompt_masses(
                    {n: q[:, :1] if readout == 'exact' else q for n, q in queries.items()},
                    texts[:1],
                )
                .abs()
                .max()
                < 1e-5
            )
        other = torch.where(model.token_mask(texts)[..., None], features, features.roll(1, 0))
        moved = (pipeline.masses(queries, other, content=told) - maps).abs().max()
    assert moved < 1e-6 if mass in ('competing', 'content') else moved > 1e-6


def test_the_end_token_is_found_behind_any_padding(model):
    "SDXL pads its two tokenizers differently, and a padding sign that the text itself holds is a word."
    mask = model.token_mask(['a hole', 'a hole !', ''])
    assert mask.sum(1).tolist() == [3, 4, 1] and not mask[:, 0].any()
    assert model.token_mask(['a hole !'], end=False).sum() == 3


def test_the_fingerprint_follows_a_lora(tmp_path):
    "Loaded, switched off, made stronger: each reads otherwise, and is another backbone to a checkpoint."
    peft = pytest.importorskip('peft')
    loaded, plain = (
        load_backbone('mini', 'cpu'),
        HybridAnomalyDetector(get_default_config(device='cpu')),
    )
    seen = [loaded.hash]
    loaded.unet.add_adapter(
        peft.LoraConfig(r=2, target_modules=['to_q', 'to_k'], init_lora_weights=False), 'a'
    )
    seen.append(loaded.hash)
    HybridAnomalyDetector(get_default_config(), loaded).save_checkpoint(tmp_path / 'a.safetensors')
    loaded.unet.set_adapters('a', 0.5)
    seen.append(loaded.hash)
    loaded.unet.disable_adapters()
    seen.append(loaded.hash)
    assert len(set(seen)) == 4 and plain.backbone.hash == seen[0]
    with pytest.raises(CheckpointError, match='other weights'):
        plain.load_checkpoint(tmp_path / 'a.safetensors')


def test_conditions_follow_precision_and_weights(model):
    latents = torch.zeros(1, 4, 16, 16)
    if not model.double:
        assert model.conditions(latents) == {}
        return
    other = copy.deepcopy(model)

    def pooled():
        told = other.conditions(latents.to(other.unet.dtype))
        return told['added_cond_kwargs']['text_embeds']

    first = pooled()
    other.to(torch.bfloat16)
    fresh = other.text_encoder_2(other.tokenize([other.settings['neutral']], 1)).text_embeds
    assert pooled().dtype == torch.bfloat16 and torch.equal(pooled(), fresh.bfloat16())
    other.to(torch.float32)
    other.text_encoder_2.text_projection.weight.data *= 2
    assert not torch.allclose(pooled(), first, atol=1e-3)


def reading(unet, groups):
    "A recorder that leaves the attention mass of token groups."
    return Recorder(unet, reduce=masses_of(groups))


def test_reading_changes_nothing(model, inputs):
    with torch.no_grad():
        plain = call(model.unet, inputs)
        groups = torch.ones(1, model.length)
        with reading(model.unet, groups) as reader:
            assert torch.equal(call(model.unet, inputs), plain)
        for m in reader.found.values():
            torch.testing.assert_close(m, torch.ones_like(m), atol=1e-5, rtol=0)
        with probing(model.unet, groups) as probes:
            torch.testing.assert_close(call(model.unet, inputs), plain, atol=1e-6, rtol=0)
        for p in probes.values():
            torch.testing.assert_close(p.mass, torch.ones_like(p.mass), atol=1e-5, rtol=0)
    with pytest.raises(RuntimeError, match='on purpose'), QueryRecorder(model.unet):
        raise RuntimeError('on purpose')
    assert hooks_on(model.unet) == 0


def test_scores_are_the_softmax_of_the_library(model, inputs):
    seen = {}

    class Spy:
        def __init__(self, name):
            self.name = name

        def __call__(
            self, attn, x, encoder_hidden_states=None, attention_mask=None, temb=None, **kw
        ):
            q, k, v = (
                attn.head_to_batch_dim(t)
                for t in (
                    attn.to_q(x),
                    attn.to_k(encoder_hidden_states),
                    attn.to_v(encoder_hidden_states),
                )
            )
            seen[self.name] = torch.softmax(torch.bmm(q, k.mT) / q.shape[-1] ** 0.5, -1)
            return attn.to_out[0](attn.batch_to_head_dim(seen[self.name] @ v))

    with QueryRecorder(model.unet) as recorder, torch.no_grad():
        call(model.unet, inputs)
    layers = cross_attention(model.unet)
    kept = {n: m.processor for n, m in layers.items()}
    for n, m in layers.items():
        m.set_processor(Spy(n))
    with torch.no_grad():
        call(model.unet, inputs)
    for n, m in layers.items():
        m.set_processor(kept[n])
    for n, m in layers.items():
        ours = (
            token_scores(m, recorder.queries[n], inputs[2][:, None])
            .softmax(-1)[:, 0]
            .flatten(2, 3)
            .flatten(0, 1)
        )
        torch.testing.assert_close(ours, seen[n], atol=1e-6, rtol=0)


def test_early_exit_and_batches_agree_with_the_whole(model):
    prompts, g = model.encode_text(WORDS), torch.Generator().manual_seed(2)
    latents = torch.randn(5, 4, 16, 24, generator=g)  # not square
    pipeline = EasonADPipeline(model)
    tokens = pipeline.tokens(WORDS)
    with torch.no_grad():
        early = pipeline.queries(latents)
        noisy = model.add_noise(latents, pipeline.timestep)
        with QueryRecorder(model.unet, list(pipeline.layers)) as recorder:
            whole = recorder.run(
                noisy,
                pipeline.timestep,
                pipeline.context().expand(5, -1, -1),
                **model.conditions(noisy),
            )
        for n in early:
            assert torch.equal(early[n], whole[n])
        maps = pipeline.masses(early, prompts, content=tokens)
        alone = torch.cat(
            [
                pipeline.masses(pipeline.queries(latents[i : i + 1]), prompts, content=tokens)
                for i in range(5)
            ]
        )
    torch.testing.assert_close(maps, alone, atol=1e-5, rtol=0)


def test_replay_is_exact_when_the_context_is_the_prompt(model):
    prompts, latents = (
        model.encode_text([WORDS[1]] * 2),
        torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(3)),
    )
    kept = model.settings['neutral']
    with torch.no_grad():
        model.settings['neutral'] = WORDS[1]
        replay = EasonADPipeline(model).queries(latents)
        exact = EasonADPipeline(model, 'exact').queries(latents, prompts)
        model.settings['neutral'] = kept
    for n in replay:
        torch.testing.assert_close(exact[n][:, 1], replay[n], atol=1e-5, rtol=1e-5)


def test_checkpointing_gives_the_same_gradient(model):
    latents, found = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(4)), []
    for on in (False, True):
        (
            model.unet.enable_gradient_checkpointing
            if on
            else model.unet.disable_gradient_checkpointing
        )()
        prompts, pipeline = (
            model.encode_text(WORDS).requires_grad_(),
            EasonADPipeline(model, 'exact'),
        )
        found.append(
            torch.autograd.grad(
                log_ratio(
                    pipeline.masses(
                        pipeline.queries(latents, prompts),
                        prompts,
                        content=pipeline.tokens(WORDS),
                    )
                )
                .square()
                .mean(),
                prompts,
            )[0]
        )
    model.unet.disable_gradient_checkpointing()
    assert found[0].abs().sum() > 0
    torch.testing.assert_close(*found, atol=1e-8, rtol=1e-4)


@pytest.mark.parametrize('dtype, tolerance', [(torch.float16, 0.005), (torch.bfloat16, 0.03)])
def test_half_precision_stays_close(model, inputs, dtype, tolerance):
    groups = torch.zeros(1, model.length)
    groups[0, 5:8] = 1
    low = copy.deepcopy(model.unet).to(dtype)
    half = lambda x: {k: half(v) for k, v in x.items()} if isinstance(x, dict) else x.to(dtype)
    with torch.no_grad():
        with reading(model.unet, groups) as full:
            call(model.unet, inputs)
        with reading(low, groups) as reader:
            call(low, (half(inputs[0]), inputs[1], half(inputs[2]), half(inputs[3])))
    for n in full.found:
        torch.testing.assert_close(
            reader.found[n], full.found[n], atol=tolerance * float(full.found[n].max()), rtol=0
        )


def test_sliced_attention_and_lora_are_read(model, inputs):
    peft = pytest.importorskip('peft')
    unet = copy.deepcopy(model.unet)
    unet.add_adapter(peft.LoraConfig(r=2, target_modules=['to_q', 'to_k'], init_lora_weights=False))
    queries = {}
    with QueryRecorder(unet) as recorder, torch.no_grad():
        call(unet, inputs)
        queries |= recorder.queries
    with QueryRecorder(model.unet) as recorder, torch.no_grad():
        call(model.unet, inputs)
    assert any(not torch.allclose(recorder.queries[n], queries[n], atol=1e-3) for n in queries)
    groups = torch.zeros(1, model.length)
    groups[0, 1] = 1
    unet.set_attention_slice('max')
    with reading(unet, groups) as reader, torch.no_grad():
        call(unet, inputs)
    for n, m in cross_attention(unet).items():
        p = token_scores(m, queries[n], inputs[2][:, None])[:, 0].softmax(-1).mean(1)[..., 1]
        torch.testing.assert_close(reader.found[n][:, 0], p, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    'backend',
    [
        'aot_eager',
        pytest.param(
            'inductor',
            marks=pytest.mark.skipif(
                'HYBRIDAD_SLOW' not in os.environ,
                reason='compiles for two minutes: HYBRIDAD_SLOW=1 runs it',
            ),
        ),
    ],
)
def test_compiles_in_one_piece(backend):
    sizes = config('bk_sdm_tiny')
    levels = 'block_out_channels', 'attention_head_dim', 'down_block_types', 'up_block_types'
    two = UNet2DConditionModel.from_config(sizes | {k: sizes[k][:2] for k in levels})
    unet = two.eval().requires_grad_(False)  # compiling takes a second for each block
    groups, latents, context = (
        torch.ones(1, 7),
        torch.randn(1, unet.config.in_channels, 16, 16),
        torch.randn(1, 7, unet.config.cross_attention_dim, requires_grad=True),
    )
    groups[0, 3:] = 0
    with probing(unet, groups) as probes:
        found = []
        for f in (unet, torch.compile(unet, fullgraph=True, backend=backend)):
            out = f(latents, torch.tensor(10), context, return_dict=False)[0]
            masses = [p.mass for p in probes.values()]
            found.append(
                (
                    out.detach(),
                    *(m.detach() for m in masses),
                    torch.autograd.grad(sum(m.square().sum() for m in masses) + out.sum(), context)[
                        0
                    ],
                )
            )
    for eager, compiled in zip(*found):
        torch.testing.assert_close(compiled, eager, atol=1e-5, rtol=1e-5)
    torch._dynamo.reset()


@pytest.mark.parametrize('part', ['', 'down_blocks.1.attentions.0.transformer_blocks.0'])
def test_a_compiled_unet_is_refused_before_it_reads_nothing(tmp_path, part):
    model = random_backbone(complete('sd2', tmp_path / 'sd2'))
    model.unet.get_submodule(part).compile(backend='eager')  # once it ran, it calls no new hooks
    readers = reading, lambda u, *_: QueryRecorder(u), lambda u, g: probing(u, g)
    for reader in readers:
        with pytest.raises(BackboneError, match='UNet2DConditionModel is compiled'):
            with reader(model.unet, torch.ones(1, model.length)):
                pass
    with pytest.raises(BackboneError, match=f'compiled{part and " in " + part},'):
        EasonADPipeline(model)


def test_a_wrapped_unet_is_refused_where_its_layers_are_asked_for(tmp_path):
    model = random_backbone(complete('sd2', tmp_path / 'sd2'))
    model.unet = torch.compile(model.unet, backend='eager')
    with pytest.raises(BackboneError, match='UNet2DConditionModel is compiled.*_orig_mod'):
        print(model.layers)


@pytest.mark.parametrize('mistake', ['compiled', 'quantised'])
def test_a_changed_text_encoder_is_refused(tmp_path, mistake):
    model = random_backbone(complete('sd2', tmp_path / 'sd2'))
    embeddings, deep = model.embed(WORDS), [torch.ones(2, model.width)]
    if mistake == 'compiled':
        model.text_encoder.compile(backend='eager')
    else:
        layer = model.text_encoder.get_submodule('encoder.layers.0.mlp.fc1')
        layer.weight = torch.nn.Parameter(layer.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(BackboneError, match=f'CLIPTextModel is {mistake}'):
        model.encode_embeddings(embeddings, deep)


def test_a_pass_in_which_a_layer_is_not_seen_is_refused(tmp_path):
    model, latents = random_backbone(complete('sd2', tmp_path / 'sd2')), torch.randn(1, 4, 16, 16)
    text, groups = model.encode_text(WORDS[:1]), torch.ones(1, model.length)
    name, last = list(cross_attention(model.unet).items())[-1]
    with reading(model.unet, groups) as reader, torch.no_grad():
        model.unet(latents, 10, text)
        last.set_processor(lambda attn, x, *args, **more: x)
        with pytest.raises(BackboneError, match=f'layer {name} ran without its to_q'):
            model.unet(latents, 10, text)
        assert name not in reader.found  # not those of the pass before


@pytest.mark.filterwarnings('ignore:torch')
@pytest.mark.parametrize('mistake', ['int8', 'dynamic'])
def test_a_quantised_unet_is_refused(tmp_path, mistake):
    model = random_backbone(complete('sd2', tmp_path / 'sd2'))
    layer = list(cross_attention(model.unet).values())[0]
    if mistake == 'int8':
        weight = layer.to_k.weight.to(torch.int8)
        layer.to_k.weight = torch.nn.Parameter(weight, requires_grad=False)
    else:
        torch.ao.quantization.quantize_dynamic(model.unet, {torch.nn.Linear}, inplace=True)
    with pytest.raises(BackboneError, match='UNet2DConditionModel is quantised in .*float16'):
        EasonADPipeline(model)


def test_a_quantised_part_of_a_folder_is_named(tmp_path):
    place = save(random_backbone(complete('sd2', tmp_path / 'sd2')), tmp_path / 'model')
    for part in ('text_encoder', 'unet'):
        file = place / part / 'config.json'
        told = dict(quantization_config=dict(quant_method='bitsandbytes', load_in_8bit=True))
        file.write_text(json.dumps(json.loads(file.read_text()) | told))
        with pytest.raises(BackboneError, match=f"part '{part}' is quantised.*bfloat16"):
            load_backbone(place, 'cpu')


def test_layers_of_a_unet_are_chosen_by_depth(model):
    every = list(cross_attention(model.unet))
    assert list(model.select([0, '-1'])) == [every[0], every[-1]]
    assert list(EasonADPipeline(model, layers=[-1]).layers) == every[-1:]
    with pytest.raises(ConfigError, match=f'depths from 0 to {len(every) - 1}'):
        model.select([len(every)])


def test_what_does_not_belong_is_refused(tmp_path):
    models = {f: random_backbone(complete(f, tmp_path / f)) for f in ('sd1', 'sdxl')}
    a, b = models['sd1'], models['sdxl']
    mix = lambda **parts: bb.Backbone(
        **dict(
            dict(
                vae=a.vae,
                unet=a.unet,
                text_encoder=a.text_encoder,
                tokenizer=a.tokenizer,
                scheduler=a.scheduler,
            ),
            **parts,
        )
    )
    with pytest.raises(BackboneError, match='do not fit'):
        mix(unet=b.unet)
    with pytest.raises(BackboneError, match="part 'scheduler' is left out"):
        mix(scheduler=None)
    with pytest.raises(BackboneError, match='of width 24'):
        mix(text_encoder=b.text_encoder_2)
    with pytest.raises(BackboneError, match='inpainting'):
        mix(unet=UNet2DConditionModel.from_config(config('sd1', in_channels=9)))
    with pytest.raises(BackboneError, match='no cross-attention'):
        mix(
            unet=UNet2DConditionModel.from_config(
                config(
                    'sd1',
                    down_block_types=['DownBlock2D'] * 4,
                    up_block_types=['UpBlock2D'] * 4,
                    mid_block_type='UNetMidBlock2D',
                )
            )
        )
    small = dict(
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=16,
    )
    for transformer in (
        SD3Transformer2DModel(
            sample_size=8, caption_projection_dim=16, dual_attention_layers=(0,), **small
        ),
        FluxTransformer2DModel(num_single_layers=1, axes_dims_rope=(2, 2, 4), **small),
    ):
        with pytest.raises(BackboneError, match='Stable Diffusion family'):
            cross_attention(transformer)


def test_every_row_of_the_ablation_finds_its_layers(model):
    rows = standard_variants(model)
    for row in rows:
        assert select_layers(model.unet, row.settings.get('layers'))
    assert {'only up blocks.1', 'all layers'} <= {row.name for row in rows}


def test_words_near_a_vector_are_found_for_one_text_encoder_and_two(model):
    words = 'a photo of a damaged object'
    assert [
        near[0][0] for near in nearest_words(model, model.embed([words])[0, 1:7])
    ] == words.split()


def test_every_case_of_the_benchmark_runs(model, inputs, monkeypatch):
    monkeypatch.setattr(cases, 'has_peer', lambda: True)
    timed = cases.forward_cases(model, inputs[0])
    assert (timed.pop('attention-map-diffusers', None) is None) == (
        model.family == 'sdxl'
    )  # it does not hand on what SDXL is conditioned on
    plain, *reading = (timed[n]() for n in ('plain', 'reader', 'store_everything'))
    for out in reading:
        torch.testing.assert_close(out, plain, atol=1e-5, rtol=1e-5)
    for n in READOUTS:
        assert timed[n]().isfinite().all()


real = pytest.mark.skipif(
    not SHARED.is_dir(),
    reason=f'the configs of Stable Diffusion 2.1 are not in {SHARED.parent}: set HYBRIDAD_SHARED',
)


@real
def test_real_tokenizer_pads_with_an_exclamation_mark():
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(SHARED, subfolder='tokenizer')
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ('!', 0)


@real
def test_benchmark_has_the_real_sizes():
    from transformers import CLIPTextConfig

    text = CLIPTextConfig.from_pretrained(SHARED, subfolder='text_encoder').to_dict()
    real = {
        p: json.loads((SHARED / p / 'config.json').read_text()) for p in ('unet', 'vae')
    } | dict(text_encoder=text)
    plain = lambda v: list(v) if isinstance(v, tuple) else v
    for part, sizes in SD21.items():
        assert {k: real[part][k] for k in sizes} == {k: plain(v) for k, v in sizes.items()}


@real
def test_stable_diffusion_2_1_at_full_size():
    model = random_backbone(SHARED)
    told = model.describe()
    assert (
        told['width'],
        told['length'],
        told['text_layers'],
        told['padding_id'],
        told['scaling'],
        told['image_size'],
    ) == (1024, 77, 23, [0], 0.18215, 512)
    assert sorted({m.heads for m in model.layers.values()}) == [10, 20] and len(model.layers) == 10
    assert list(model.layers)[-1].startswith('up_blocks.2.attentions.2')
    learner = MinimalPromptLearner(model)
    assert learner.trainable == 57_344
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        context = model.encode_text(WORDS[:1])
        plain = model.unet(latents, 100, context).sample
        with reading(model.unet, torch.ones(1, 77)) as reader:
            torch.testing.assert_close(
                model.unet(latents, 100, context).sample, plain, atol=1e-6, rtol=0
            )
        for m in reader.found.values():
            torch.testing.assert_close(m, torch.ones_like(m), atol=1e-5, rtol=0)
        pipeline = EasonADPipeline(model)
        prompts = model.encode_embeddings(*learner())
        maps = pipeline.masses(
            pipeline.queries(latents), prompts, content=learner.counted(pipeline.mass)
        )
    assert maps.shape == (1, 2, 64, 64) and maps.isfinite().all() and maps.std() > 0


def test_a_letter_that_the_tokenizer_lacks_is_told(recwarn):
    "CLIP's end token stands for it, so words behind it would be lost without a word."
    mini = load_backbone('mini', 'cpu')
    mini.encode_text(['a photo of an object', ''])
    assert not recwarn.list
    for text in ('a na\u00efve object', 'caf\u00e9'):
        with pytest.warns(UserWarning, match=f'lacks a letter of {text!r}'):
            mini.encode_text(['a photo of an object', text])
