/* A checkpoint of random weights with every tensor and file of a real one, so that everything runs where
 * weights cannot be had. Its config.json says so: "tilebook_synthetic" is the seed. */
#ifndef TILEBOOK_DECODER_SYNTHETIC_H
#define TILEBOOK_DECODER_SYNTHETIC_H

#include <stdint.h>

#include "bench/decoder/config.h"

/* Statistics that keep activations finite through any number of layers. Weights are normal with mean 0; norms
 * are normal around 1. Int4 codes are uniform in 0..15 (standard deviation 4.61) with zero points 7 or 8 (AWQ)
 * or 8 (GPTQ), and scales uniform between the limits below, so that W comes out with the same deviation. */
#define SYNTHETIC_WEIGHT_STD 0.02f
#define SYNTHETIC_NORM_STD 0.05f
#define SYNTHETIC_SCALE_LOW 0.0021f
#define SYNTHETIC_SCALE_HIGH 0.0062f

struct synthetic_options {
    struct model_config config; /* dtype float16 or bfloat16; float16 if quantised */
    int64_t seed;
    const char *directory; /* made; must not exist, or be empty */
    const char *tokenizer; /* directory to copy tokenizer.json from, or NULL */
    int64_t shard_bytes;   /* tensors of one file; 0: as published checkpoints are cut */
    void (*report)(const char *file, int64_t bytes, int64_t done, int64_t total); /* after each shard, or NULL */
};

/* The same bytes for the same config and seed. Files appear under their names only when they are whole, and
 * config.json comes last. Errors: the directory holds files, the disk is full or too small, no memory. */
int synthetic_write(const struct synthetic_options *options, struct error *error);

#endif
