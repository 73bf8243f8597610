/* What a checkpoint says behind prompts, for agree.py: writes the logits (fp32, vocab) from which each greedy token was
 * chosen to a file, and the tokens to standard output, a prompt behind the other. Of each prompt the first row is the
 * prefill's, the others are of steps. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/decoder/model.h"
#include "bench/decoder/prompt.h"

static const char usage[] = "usage: logits DEVICE DIR METHOD BATCH TOKENS FILE TABLE|- PROMPT...\n"
                            "  PROMPT is ID[,ID]...; BATCH sequences run together, and the last of them is told of.\n";

/* Where they are in argv. */
enum { DEVICE = 1, DIR, METHOD, BATCH, TOKENS, FILE_OUT, TABLE, PROMPTS };

struct run {
    int batch, tokens;
    const char *path;
    FILE *file;
    struct device *device;
    struct model_config config;
    struct checkpoint *checkpoint;
    struct tile_table table;
    struct model *model;
    int longest;                   /* prompt */
    int *ids, *positions, *turned; /* (batch), (batch), (longest) */
    float *logits;
};

static int open_table(struct run *run, const char *path, struct error *error) {
    const struct device *device = run->device;
    char message[TILES_MESSAGE];
    if (tiles_read(path, &run->table, message)) return error_set(error, "%s", message);
    if (!tiles_match(&run->table, device->name, device->architecture, device->multiprocessors, device->kernels,
                     message))
        return 0;
    return error_set(error, "%s was not made for this: %s", path, message);
}

static int allocate(struct run *run, struct error *error) {
    size_t batch = (size_t)run->batch;
    run->ids = calloc(batch, sizeof *run->ids);
    run->positions = calloc(batch, sizeof *run->positions);
    run->turned = calloc((size_t)run->longest, sizeof *run->turned);
    run->logits = calloc((size_t)run->config.vocab, sizeof *run->logits);
    if (run->ids && run->positions && run->turned && run->logits) return 0;
    return error_set(error, "out of memory");
}

static int count_ids(const char *prompt) {
    int count = 1;
    for (; *prompt; prompt++) count += *prompt == ',';
    return count;
}

static int open_model(struct run *run, char **argv, struct error *error) {
    const bool tuned = strcmp(argv[TABLE], "-");
    enum method asked, method;
    if (method_parse(argv[METHOD], &asked, error) || model_config_read(argv[DIR], &run->config, error) ||
        method_resolve(asked, &run->config, argv[DIR], &method, error) ||
        checkpoint_open(argv[DIR], &run->checkpoint, error) || device_open(argv[DEVICE], &run->device, error) ||
        (tuned && open_table(run, argv[TABLE], error)))
        return -1;
    const struct model_options options = {
        .method = method,
        .context = run->longest + run->tokens,
        .sequences = run->batch,
        .chunk = MODEL_CHUNK,
        .table = tuned ? &run->table : NULL,
    };
    return model_create(run->device, &run->config, run->checkpoint, &options, &run->model, error);
}

static int open_run(struct run *run, char **argv, struct error *error) {
    run->batch = atoi(argv[BATCH]);
    run->tokens = atoi(argv[TOKENS]);
    run->path = argv[FILE_OUT];
    if (run->batch < 1 || run->tokens < 1)
        return error_set(error, "BATCH and TOKENS: found %s and %s; accepted: 1 and more", argv[BATCH], argv[TOKENS]);
    for (char **prompt = argv + PROMPTS; *prompt; prompt++) {
        int count = count_ids(*prompt);
        if (count > run->longest) run->longest = count;
    }
    run->file = fopen(run->path, "wb");
    if (!run->file) return error_set(error, "%s: %s", run->path, strerror(errno));
    return open_model(run, argv, error) || allocate(run, error) ? -1 : 0;
}

static void close_run(struct run *run) {
    model_destroy(run->model);
    if (run->file) fclose(run->file);
    tiles_free(&run->table);
    checkpoint_close(run->checkpoint);
    device_close(run->device);
    free(run->ids);
    free(run->positions);
    free(run->turned);
    free(run->logits);
}

/* The last sequence's row, from which its next token was chosen. */
static int put(const struct run *run, struct error *error) {
    size_t vocab = (size_t)run->config.vocab;
    int id = run->ids[run->batch - 1];
    if (id < 0) return error_set(error, "a logit is not finite");
    if (fwrite(run->logits, sizeof *run->logits, vocab, run->file) != vocab || fflush(run->file))
        return error_set(error, "%s: %s", run->path, strerror(errno));
    printf("%d\n", id);
    return 0;
}

/* Every sequence begins elsewhere in the ids and goes round, so that no two are alike; the last begins at the first. */
static int prefill(struct run *run, const int *prompt, int count, struct error *error) {
    for (int i = 0; i < run->batch; i++) {
        for (int j = 0; j < count; j++) run->turned[j] = prompt[(j + run->batch - 1 - i) % count];
        if (model_forward(run->model, i, run->turned, count, 0, run->logits, error) ||
            model_choose(run->model, i, count - 1, &run->ids[i], error))
            return -1;
        run->positions[i] = count;
    }
    return put(run, error);
}

static int steps(struct run *run, struct error *error) {
    double seconds;
    if (run->tokens > 1 && model_begin(run->model, NULL, run->ids, run->positions, run->batch, error)) return -1;
    for (int i = 1; i < run->tokens; i++)
        if (model_step(run->model, error) || model_take(run->model, run->ids, &seconds, error) ||
            model_logits(run->model, run->batch - 1, run->logits, error) || put(run, error))
            return -1;
    return 0;
}

/* What all prompts need is compiled on all cores. */
static int expect(struct run *run, char **prompts, struct error *error) {
    if (model_expect_steps(run->model, run->batch, error)) return -1;
    for (; *prompts; prompts++)
        if (model_expect(run->model, count_ids(*prompts), error)) return -1;
    return 0;
}

static int answer(struct run *run, const char *text, struct error *error) {
    int *prompt, count;
    int status = prompt_ids(text, run->config.vocab, &prompt, &count, error);
    if (!status) status = prefill(run, prompt, count, error) || steps(run, error) ? -1 : 0;
    free(prompt);
    return status;
}

int main(int argc, char **argv) {
    struct run run = {0};
    struct error error = {""};
    if (argc <= PROMPTS) {
        fputs(usage, stderr);
        return 2;
    }
    int status = open_run(&run, argv, &error) || expect(&run, argv + PROMPTS, &error);
    for (char **prompt = argv + PROMPTS; *prompt && !status; prompt++) status = answer(&run, *prompt, &error);
    close_run(&run);
    if (status) fprintf(stderr, "logits: %s\n", error.text);
    return status ? 1 : 0;
}
