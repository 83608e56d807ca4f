"""The exported ONNX graph against PyTorch: maps, scores, time.

Command:  python experiments/onnx_graph.py (writes results/onnx.json)
Duration: a minute
Data:     what hybridad.inference.onnx compares with; prompts of the package"""

import torch
from common import RESULTS, about, fresh

from hybridad.inference.onnx import export_onnx
from hybridad.models.detector import HybridAnomalyDetector
from hybridad.models.parts import MINI
from hybridad.runs import write_json


def main():
    prompts = MINI / 'prompts.safetensors'
    detector, stored = HybridAnomalyDetector.from_checkpoint(prompts, 'mini', 'cpu')
    out = fresh('onnx')
    out.mkdir(parents=True)
    found = export_onnx(detector, out / 'detector.onnx', dict(thresholds=stored.get('thresholds')))
    print(found)
    write_json(RESULTS / 'onnx.json', found | about('python experiments/onnx_graph.py', None))


if __name__ == '__main__':
    torch.set_num_threads(2)
    main()
