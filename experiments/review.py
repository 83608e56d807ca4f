"""What twenty corrections change on photographs that nobody reviewed, beside controls.

Command:  python experiments/review.py
Duration: `cpu_seconds` in the result
Data:     three sets of DATA.md, from the folder that HYBRIDAD_SHARED names

The prompts that ship decide at their stored threshold. Ten good and ten defective photographs of
one half of a set are reviewed by their labels; the other half is held back, groups of
near-duplicates kept together. One draw of the twenty, so a difference of two images is chance.
Ways:

threshold:  the verdicts move the threshold alone
verdicts:   `learn_again` from the verdicts
boxes:      the same, with a box around each defect that was missed
random:     the control: `learn_again` from the same verdicts, dealt to other images"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from common import Timed, arguments, cached, photographs
from real import numbered
from scipy import ndimage

from hybridad.data.corrections import Correction, Corrections
from hybridad.data.loading import read_mask, sample_digest
from hybridad.inference.scoring import SHIPPED
from hybridad.metrics.alarms import corrected_threshold
from hybridad.metrics.exact import image_metrics
from hybridad.models.detector import HybridAnomalyDetector
from hybridad.models.features import read_cached
from hybridad.training.relearn import learn_again

SETS = 'leather', 'asphalt', 'magnetic_tile'
REVIEWED, HELD_BACK, DRAWS = 10, 40, 1  # of each kind; draws of the twenty


def loaded(a) -> tuple:
    "The prompts that ship, and their metadata."
    return HybridAnomalyDetector.from_checkpoint(SHIPPED, a.backbone, 'cpu')


def parts(name: str, seed: int) -> tuple[list, list]:
    "Samples to review and samples held back, from different halves."
    rng = np.random.default_rng(seed)
    halves = [[s for g, s in numbered(photographs(name), name) if g % 2 == k] for k in (0, 1)]

    def some(samples, label, count):
        kind = [s for s in samples if s.label == label]
        return [kind[i] for i in rng.permutation(len(kind))[:count]]

    review, held = ([], [])
    for label in (0, 1):
        review += some(halves[0], label, REVIEWED)
        held += some(halves[1], label, HELD_BACK)
    return review, held


def boxes_of(sample) -> tuple:
    "A box around each region of a mask, in px."
    found = ndimage.find_objects(ndimage.label(read_mask(sample.mask), np.ones((3, 3)))[0])
    return tuple((float(x.start), float(y.start), float(x.stop), float(y.stop)) for y, x in found)


def verdict(sample, label: int, score: float, *, start: float, marks: bool) -> Correction:
    "The word of a reviewer who takes `label` for the truth."
    alarm = score >= start
    word = 'right' if label == alarm else 'missed' if label else 'false alarm'
    boxes = boxes_of(sample) if marks and word == 'missed' else ()
    decision = 'anomalous' if alarm else 'normal'
    facts = decision, float(score), sample_digest(sample.image)
    return Correction(str(sample.image), word, *facts, boxes)


def judged(detector, kept, threshold: float) -> dict:
    "Mistakes and order on the images held back."
    scores, labels = read_cached(detector, kept)[1], np.array([s.label for s in kept.samples])
    return dict(
        missed=int(((scores < threshold) & (labels == 1)).sum()),
        false_alarms=int(((scores >= threshold) & (labels == 0)).sum()),
        image_auroc=round(image_metrics(scores, labels)['auroc'], 4),
        threshold=round(float(threshold), 4),
    )


def again(a, review, scores, *, labels, marks: bool) -> tuple:
    "A detector that learned from corrections, and its threshold."
    detector, about = loaded(a)
    start = about['thresholds']['image']
    with tempfile.TemporaryDirectory() as work:
        words = Corrections(Path(work) / 'corrections.json', dict(threshold=start, plain=True))
        for sample, label, score in zip(review, labels, scores):
            words.put(verdict(sample, int(label), score, start=start, marks=marks))
        how = dict(out=Path(work) / 'again', progress=False)
        found = learn_again(detector, about, words, **how)
    return detector, found['threshold']


def trial(name: str, seed: int, a) -> dict:
    "One draw of a set: each way on the same images held back."
    detector, about = loaded(a)
    (review, held), start = parts(name, seed), about['thresholds']['image']
    kept, scores = cached(detector, held), read_cached(detector, cached(detector, review))[1]
    truth = np.array([s.label for s in review])
    moved = corrected_threshold(scores.tolist(), truth.tolist(), start)
    rows = dict(before=judged(detector, kept, start), threshold=judged(detector, kept, moved))
    dealt = np.random.default_rng(seed).permutation(truth)
    for way, labels, marks in (
        ('verdicts', truth, False),
        ('boxes', truth, True),
        ('random', dealt, False),
    ):
        learned, end = again(a, review, scores, labels=labels, marks=marks)
        rows[way] = judged(learned, kept, end)
    held_back = dict(good=sum(not s.label for s in held), defective=sum(s.label for s in held))
    wrong = int(((scores >= start) != truth).sum())
    print(name, seed, wrong, rows, flush=True)
    return dict(seed=seed, wrong_of_reviewed=wrong, held_back=held_back, **rows)


def means(trials: list) -> dict:
    "Each way's mean over the draws."
    ways = ('before', 'threshold', 'verdicts', 'boxes', 'random')
    keys = 'missed', 'false_alarms', 'image_auroc'
    return {w: {k: round(float(np.mean([t[w][k] for t in trials])), 4) for k in keys} for w in ways}


def main():
    a = arguments(__doc__)
    timed, found = Timed(a, 'review', 'python experiments/review.py'), {}
    for name in SETS[:1] if a.small else SETS:
        trials = [trial(name, seed, a) for seed in range(DRAWS)]
        found[name] = dict(reviewed=2 * REVIEWED, mean=means(trials), draws=trials)
        timed.write(found)


if __name__ == '__main__':
    torch.set_num_threads(1)
    main()
