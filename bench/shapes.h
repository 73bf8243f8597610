/* Lists of problems' shapes: a model by name or directory, or KxN, from the command line or a file. */
#ifndef TILEBOOK_SHAPES_H
#define TILEBOOK_SHAPES_H

#include <stdbool.h>

#include "kernels/error.h"
#include "kernels/kernel.h"

struct shape {
    char layer[24]; /* "qkv", "o", "gate_up", "down", "lm_head"; "KxN" for a plain shape without a name */
    int k, n;
    bool quantized;         /* false for lm_head: only fp16_gemm runs it */
    enum epilogue epilogue; /* that the decoder gives its GEMM; none for lm_head and a plain shape */
    int m;                  /* its only M; 0: each that the command is given */
};

struct shapes {
    char model[64]; /* "qwen2.5-14b", the directory's last part, or "" */
    int group;      /* the checkpoint's (0: one group for all of K), else 128 */
    int count;
    struct shape *list;
};

/* A model ("qwen2.5-0.5b" to "qwen2.5-72b", "llama-3-8b", "llama-3-70b"), a directory with config.json, either with
 * ":tpN" for the part of one of N devices (tensor parallel); or "[NAME=]KxN[@M],..."; or a file of those, separated by
 * blanks, lines or commas, "#" before a comment. @M: at this M alone. */
int shapes_parse(const char *text, struct shapes *shapes, struct error *error);
void shapes_free(struct shapes *shapes);

/* The op's problem of a shape: group 0 is one group for all of K; what the op lacks (M and epilogue of
 * awq_dequant, groups and zeros of fp16_gemm) is as problem_check wants it. */
struct problem shape_problem(const struct shape *shape, enum op op, int m, int group, bool zeros,
                             enum epilogue epilogue);

/* "1,16,256", "1:8192:x2" (from:to:factor), "1:64:+8" (step); ascending, without repeats. The caller frees
 * *list. */
int m_list_parse(const char *text, int **list, int *count, struct error *error);

#endif
