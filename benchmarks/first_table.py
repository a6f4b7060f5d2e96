"""A stranger's own model and 500 texts to a table of neighbours to browse: seven lines, from an empty process.

    python -m benchmarks.first_table TEXTS.csv [--model models/small-gpt2]

Each way is a process of its own, imports and compiled code's loading included. TEXTS has a text a line; of a row of
a .csv file all columns but the first are the text. *Every token*: each token of each text in one layer; *20 a text*:
`tokens="random:20"`. Seconds of the clock, and of all cores: beside other work, the second are what can be compared.
"""

from __future__ import annotations

import csv
import json
import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from benchmarks._machine import Figure, arguments, describe, report

MOST = 20.0
LINES = """
import polytope_lm as plm
from transformers import AutoModelForCausalLM, AutoTokenizer
hf_model = AutoModelForCausalLM.from_pretrained(where)
tokenizer = AutoTokenizer.from_pretrained(where)
model = plm.wrap(hf_model, tokenizer)
codes = plm.encode(model, texts, layers=[layer]{tokens})
near = codes.neighbourhoods()
"""
START = "import json, sys; where, layer, texts = sys.argv[1], int(sys.argv[2]), json.load(open(sys.argv[3]))"
END = "near._repr_html_(); print(len(codes), near.site.width)"


def main() -> None:
    """Run the seven lines both ways."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("texts", type=Path)
    parser.add_argument("--model", default="models/small-gpt2", help="a transformers directory (%(default)s)")
    parser.add_argument("--layer", type=int, default=3)
    parser.add_argument("--count", type=int, default=500, help="texts (%(default)s)")
    options = parser.parse_args()
    machine, figures = describe(), []
    with options.texts.open(encoding="utf-8") as file:
        lines = [". ".join(row[1:]) for row in csv.reader(file)] if options.texts.suffix == ".csv" else file.readlines()
    with TemporaryDirectory() as folder:
        place = Path(folder, "texts.json")
        place.write_text(json.dumps(lines[: options.count]), encoding="utf-8")
        for name, tokens in (("every token", ""), ("20 a text", ', tokens="random:20"')):
            code = f"{START}\n{LINES.format(tokens=tokens)}\n{END}"
            used, began = resource.getrusage(resource.RUSAGE_CHILDREN), perf_counter()
            command = [sys.executable, "-c", code, options.model, str(options.layer), str(place)]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            clock, spent = perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
            cores = spent.ru_utime + spent.ru_stime - used.ru_utime - used.ru_stime
            rows, width = (int(number) for number in said.split()[-2:])
            note = f"{cores:.1f} s of all cores; {rows:,} tokens, {width} neurons"
            figures.append(Figure(name, clock, "s", must=MOST, bound="at most", note=note))
    report(figures, options.json, machine)


if __name__ == "__main__":
    main()
