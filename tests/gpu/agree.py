#!/usr/bin/env python3
"""Whether the decoder says of a checkpoint what transformers says of the same files (README.md tells more).

The decoder runs first, a process a method: prompts and greedy tokens, with the logits behind each. Then transformers
runs each of these sequences as a whole, with 4-bit weights dequantised, in fp32, which the decoder is held against, and
in fp16, which shows how far off another's fp16 is. Exit code: 0 they agree, 1 they do not.
"""
import argparse
import gc
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors import safe_open
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding

BOUND = 2e-2  # of both figures of a row, against fp32
SHOWN = 5  # tokens that differ
METHODS = {"none": ["none"], "awq": ["awq", "awq_marlin"], "gptq": ["gptq", "gptq_marlin"]}
AWQ_NIBBLES = [0, 4, 1, 5, 2, 6, 3, 7]  # of the columns 8c, 8c + 1, ... in word c


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("directory", type=Path, help="the checkpoint; made of random weights if it is not there")
    parser.add_argument("--like", default="qwen2.5-14b", help="shape of one that is made: a name or a directory")
    parser.add_argument("--quantization", default="awq", choices=METHODS, help="of one that is made")
    parser.add_argument("--seed", type=int, default=0, help="of one that is made")
    parser.add_argument("--device", default="cuda:0", help="cuda:N or cpu")
    parser.add_argument("--prompts", default="1,300,2000", help="the tokens of each (default %(default)s)")
    parser.add_argument("--tokens", type=int, default=64, help="greedy tokens of each")
    parser.add_argument("--batch", type=int, default=1, help="sequences that are decoded together")
    parser.add_argument("--table", default="-", help="tile table (default: built-in configurations)")
    parser.add_argument("--build", type=Path, default=Path("build"), help="where tilebook and tests/gpu/logits are")
    return parser.parse_args()


def timed(what, function, *arguments):
    start = time.monotonic()
    result = function(*arguments)
    print(f"{what}: {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)
    return result


# --- the decoder ---


def run(command, **options):
    """One of the programs, which says itself what failed."""
    done = subprocess.run(command, text=True, **options)
    if done.returncode:
        sys.exit(f"{command[0]} ended with {done.returncode}")
    return done.stdout


def make(arguments):
    command = [arguments.build / "tilebook", "model", "make", "--like", arguments.like]
    command += ["--quantization", arguments.quantization, "--dtype", "float16", "--seed", str(arguments.seed)]
    run([*command, arguments.directory])


def decode(arguments, method, prompts, vocab):
    """For each prompt the greedy tokens, and the logits (tokens, vocab) that they were chosen from."""
    with tempfile.NamedTemporaryFile() as file:
        command = [arguments.build / "tests/gpu/logits", arguments.device, arguments.directory, method]
        command += [str(arguments.batch), str(arguments.tokens), file.name, arguments.table]
        command += [",".join(map(str, prompt)) for prompt in prompts]
        output = run(command, stdout=subprocess.PIPE)
        logits = torch.from_numpy(np.fromfile(file.name, "<f4").reshape(len(prompts), arguments.tokens, vocab))
    tokens = np.array(output.split(), int).reshape(len(prompts), arguments.tokens)
    return list(zip(tokens.tolist(), logits))


# --- transformers ---


def nibbles(words, order):
    """int32 (...) to codes (..., 8)."""
    shifts = 4 * torch.tensor(order, dtype=words.dtype, device=words.device)
    return words.unsqueeze(-1) >> shifts & 15


def dequantize(parts, quantization, dtype):
    """W (K, N) from qweight, qzeros, scales and, of GPTQ, g_idx."""
    scales = parts["scales"].to(dtype)
    if quantization["quant_method"] == "awq":
        codes = nibbles(parts["qweight"], AWQ_NIBBLES).flatten(1)
        zeros = nibbles(parts["qzeros"], AWQ_NIBBLES).flatten(1)
        groups = torch.arange(len(codes), device=codes.device) // (len(codes) // len(scales))
    else:
        codes = nibbles(parts["qweight"], range(8)).transpose(1, 2).flatten(0, 1)
        zeros = nibbles(parts["qzeros"], range(8)).flatten(1)
        zeros += quantization.get("checkpoint_format") != "gptq_v2"  # version 1 stores z - 1
        groups = parts["g_idx"].long()
    return (codes - zeros[groups]).to(dtype) * scales[groups]


def read_state(directory, names, quantization, dtype, device):
    """The tensors by these names. Words go to the device before they are dequantised."""
    files = [safe_open(path, "pt", device=device) for path in sorted(directory.glob("*.safetensors"))]
    where = {name: file for file in files for name in file.keys()}
    state = {}
    for name in names:
        prefix = name.removesuffix("weight")
        if prefix + "qweight" in where:
            parts = [part for part in ("qweight", "qzeros", "scales", "g_idx") if prefix + part in where]
            words = {part: where[prefix + part].get_tensor(prefix + part) for part in parts}
            state[name] = dequantize(words, quantization, dtype).t().contiguous()
        elif name in where:
            state[name] = where[name].get_tensor(name).to(dtype)
    return state


def load(directory, config, dtype, device):
    with torch.device("meta"):
        model = Qwen2ForCausalLM(config)
    state = read_state(directory, model.state_dict(), getattr(config, "quantization_config", None), dtype, device)
    if config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state, assign=True)
    model.model.rotary_emb = Qwen2RotaryEmbedding(config, device)
    model.set_attn_implementation("eager" if dtype == torch.float32 else "sdpa")  # eager has no TF32 in it
    return model.eval()


@torch.no_grad()
def answer(arguments, config, dtype, sequences):
    """The logits (tokens, vocab) of the last positions of each sequence."""
    model = load(arguments.directory, config, dtype, arguments.device)
    rows = []
    for ids in sequences:
        output = model(torch.tensor([ids], device=arguments.device), logits_to_keep=arguments.tokens, use_cache=False)
        rows.append(output.logits[0].float().cpu())
    del model, output
    gc.collect()
    if arguments.device != "cpu":
        torch.cuda.empty_cache()
    return rows


# --- comparing ---


def largest(logits, reference):
    """max |difference| / max |reference| of each row; the worst row's."""
    return ((logits - reference).abs().amax(1) / reference.abs().amax(1)).max().item()


def norm(logits, reference):
    """||difference|| / ||reference|| of each row; the worst row's."""
    return ((logits - reference).norm(dim=1) / reference.norm(dim=1)).max().item()


def differing(tokens, logits, fp16, fp32):
    """Prints the tokens that are not the best of transformers' fp16; how many of them are no near-ties.

    A near-tie is what another rounding decides: in fp32 the token is below the best by no more than twice what fp16 is
    off by in that row.
    """
    rows = [row for row, token in enumerate(tokens) if fp16[row, token] < fp16[row].max()]
    wrong = 0
    for row in rows:
        token, best = tokens[row], int(fp16[row].argmax())
        below, error = (fp32[row].max() - fp32[row, token]).item(), (fp16[row] - fp32[row]).abs().max().item()
        near = below <= 2 * error
        wrong += not near
        if row not in rows[:SHOWN]:
            continue
        here, half, full = (f"{each[row, token]:.4f} {each[row, best]:.4f}" for each in (logits, fp16, fp32))
        print(f"  token {row}: {token}, and {best} of fp16; the logits of both: {here}, of fp16 {half}, of fp32 {full}")
        verdict = "a near-tie" if near else "NO NEAR-TIE"
        print(f"    {verdict}: {below:.4f} below fp32's best, fp16 is off by {error:.4f}")
    if len(rows) > SHOWN:
        print(f"  and {len(rows) - SHOWN} more; {wrong} of all are no near-ties")
    return wrong


def bests(logits, tokens):
    """How many of the tokens have the largest logit of their row."""
    return int((logits[range(len(tokens)), tokens] == logits.amax(1)).sum())


def print_spread(prompt, tokens, fp32):
    first, second = fp32.topk(2).values.T
    print(
        f"prompt of {prompt}: {len(set(tokens))} different tokens; logits: deviation {fp32.std():.2f}, largest "
        f"{fp32.max():.2f}, best above second {(first - second).median():.2g} (median); likeliest token "
        f"{fp32.softmax(1).amax(1).median():.2g} (median)"
    )


def print_row(name, half, full, same, count):
    """How far off fp16 and fp32, each (largest, norm), and how many tokens are the same."""
    cells = [" " * 11 if value is None else f"{value:11.2e}" for value in (half[0], full[0], half[1], full[1])]
    print(f"{name:22}{cells[0]}{cells[1]}   {cells[2]}{cells[3]}{same:9} of {count}")


def print_heading():
    print(f"\n{'':22}{'largest difference from':>22}   {'norm of difference from':>22}")
    print(f"{'prompt, method':22}{'fp16':>11}{'fp32':>11}   {'fp16':>11}{'fp32':>11}     same token")


def print_fp16(prompt, half, full):
    """transformers' own fp16: its tokens are compared with fp32's."""
    off = largest(half, full), norm(half, full)
    print_row(f"{prompt:5} (fp16)", (None, None), off, bests(full, half.argmax(1)), len(half))


def agrees(prompt, method, tokens, logits, half, full):
    """Prints its row; whether it agrees."""
    off = [(largest(logits, each), norm(logits, each)) for each in (half, full)]
    print_row(f"{prompt:5} {method}", *off, bests(half, tokens), len(tokens))
    wrong = differing(tokens, logits, half, full)
    own = bests(logits, tokens) == len(tokens)
    if not own:
        print("  a token does not have the largest of the decoder's own logits")
    return max(off[1]) <= BOUND and not wrong and own


def main():
    arguments = parse_arguments()
    if not (arguments.directory / "config.json").exists():
        timed("making the checkpoint", make, arguments)
    config = Qwen2Config.from_pretrained(arguments.directory)
    quantization = getattr(config, "quantization_config", None) or {"quant_method": "none"}
    lengths = [int(length) for length in arguments.prompts.split(",")]
    prompts = [[(i * 7919 + 13) % config.vocab_size for i in range(length)] for length in lengths]

    runs = []  # (prompt, method, tokens, logits)
    for method in METHODS[quantization["quant_method"]]:
        answers = timed(method, decode, arguments, method, prompts, config.vocab_size)
        runs += [(prompt, method, *each) for prompt, each in zip(prompts, answers)]
    runs.sort(key=lambda run: len(run[0]))
    sequences = [prompt + tokens[:-1] for prompt, _, tokens, _ in runs]
    fp16 = timed("transformers fp16", answer, arguments, config, torch.float16, sequences)
    fp32 = timed("transformers fp32", answer, arguments, config, torch.float32, sequences)

    name = arguments.device if arguments.device == "cpu" else torch.cuda.get_device_name(arguments.device)
    print(f"{arguments.directory}, {arguments.tokens} tokens, batch {arguments.batch}, tiles {arguments.table}")
    print(f"{name}; torch {torch.__version__}, transformers {transformers.__version__}\n")
    firsts = range(0, len(runs), len(runs) // len(prompts))
    for i in firsts:
        print_spread(len(runs[i][0]), runs[i][2], fp32[i])
    print_heading()
    agree = True
    for i, ((prompt, method, tokens, logits), half, full) in enumerate(zip(runs, fp16, fp32)):
        if i in firsts:
            print_fp16(len(prompt), half, full)
        agree &= agrees(len(prompt), method, tokens, logits, half, full)
    print(f"\n{'They agree' if agree else 'They do NOT agree'} (within {BOUND:g} of fp32, tokens but for near-ties)")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
