/* What a Hugging Face model directory says of itself: config.json, quantize_config.json,
 * generation_config.json. Every number is read from there; none is built in. */
#ifndef TILEBOOK_DECODER_CONFIG_H
#define TILEBOOK_DECODER_CONFIG_H

#include <stdbool.h>

#include "kernels/error.h"

enum quant_method { QUANT_NONE, QUANT_AWQ, QUANT_GPTQ };

struct model_config {
    int hidden, intermediate, layers, heads, kv_heads, head_dim, vocab, max_position;
    double rms_eps, rope_theta;
    bool tied;      /* lm_head shares embed_tokens */
    char dtype[16]; /* "bfloat16", "float16", "float32", as config.json says */
    enum quant_method quant;
    const char *quant_file; /* that said so: "config.json" or "quantize_config.json"; a literal */
    int group;              /* rows a scale; 0 unless quantised; -1 in the file becomes 0 = all of K: see group_all */
    bool group_all;         /* one group for all of K */
    bool symmetric, desc_act;
    bool gptq_v2;
    int eos[8], eos_count;
    double temperature, top_p, repetition_penalty; /* generation_config.json, else 1, 1, 1 */
    int top_k;                                     /* else 0: off */
    bool do_sample;
    bool synthetic; /* made by `tilebook model make`: random weights (config.json: tilebook_synthetic) */
};

/* Errors: no such directory, no config.json, not Qwen2ForCausalLM, missing or impossible field (file and
 * field named), rope type or sliding window not implemented, quantisation not supported (bits, group,
 * version, llm-awq's layout). Numbers are bounded so that products of two of them fit in int64_t. */
int model_config_read(const char *directory, struct model_config *config, struct error *error);

/* The shape of a published model, unquantised, without its files: "qwen2.5-0.5b" to "qwen2.5-72b" (the Instruct
 * models). */
int model_config_named(const char *name, struct model_config *config, struct error *error);

/* Whether the token ends a text. */
bool model_config_ends(const struct model_config *config, int id);

#endif
