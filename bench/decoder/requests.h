/* Many prompts from a file, each with what came of it. */
#ifndef TILEBOOK_DECODER_REQUESTS_H
#define TILEBOOK_DECODER_REQUESTS_H

#include <stdio.h>

#include "bench/decoder/tokenizer.h"

struct request {
    int line; /* of the file, from 1 */
    int *prompt, prompt_count, max_tokens;
    int *ids, count;      /* the new ones, an end-of-text token included */
    double first_seconds; /* from getting its place to the first of them */
    const char *stop;     /* "eos", "length", "context", "cancelled", "error"; NULL: it has not ended */
    char *why;            /* of "error" */
};

struct requests {
    const char *path;
    struct request *list;
    int count;
};

struct requests_rules {
    const struct tokenizer *tokenizer; /* or NULL */
    bool chat;
    int vocab, max_tokens; /* the latter where a line does not say */
};

/* One request for each line that is not empty: the text of a prompt; where `path` ends in ".jsonl" an object with
 * "prompt" or "prompt_ids" and maybe "max_tokens". "-" is standard input. A line that cannot run is a request that has
 * ended with "error". Errors: the file cannot be read, is 64 MiB or larger, has no prompts; a text needs a tokenizer.
 * requests_free is due after a failure too. */
int requests_read(const char *path, const struct requests_rules *rules, struct requests *requests, struct error *error);
/* The same of the file's bytes. */
int requests_parse(const char *path, const char *text, size_t bytes, const struct requests_rules *rules,
                   struct requests *requests, struct error *error);
void requests_free(struct requests *requests);

/* Positions that the longest needs, no more than `most`; 0 if none can run. */
int requests_context(const struct requests *requests, int most);
/* Ends those whose prompts do not fit `context` positions; a model takes `most`. */
int requests_fit(struct requests *requests, int context, int most, struct error *error);
/* Ends one with "error". */
int request_fail(struct request *request, const struct error *why, struct error *error);
/* Those that have not ended. */
int requests_open(const struct requests *requests);

/* One that ended as a JSON object on a line of its own: line, prompt_tokens, ids, text, stop, ttft_ms; or line, error.
 * The text is "" without a tokenizer. */
int request_print(const struct request *request, const struct tokenizer *tokenizer, FILE *stream, struct error *error);

#endif
