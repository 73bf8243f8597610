#include "bench/decoder/model.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench/decoder/forward.h"
#include "bench/nvtx.h"
#include "kernels/half.h"

_Static_assert((int)MODEL_STEPS == (int)OPS_RING, "model.h says what the ring holds");

/* --- making --- */

enum { MARGIN = 1 << 30 }; /* bytes that a KV cache of what is free leaves */

static void *take(struct model *model, size_t bytes, size_t *total, struct error *error) {
    void *memory = device_alloc(model->device, bytes, error);
    if (memory) *total += bytes;
    return memory;
}

/* Whether some linear has permuted columns; the elements of the largest that is dequantised. */
static bool survey(const struct model *model, size_t *dequantized) {
    bool permuted = false;
    for (int i = 0; i < model->config->layers; i++)
        for (int which = 0; which < LAYER_LINEARS; which++) {
            const struct linear *linear = &model->weights.layers[i].linear[which];
            size_t elements = (size_t)linear->n * (size_t)linear->k;
            if (linear->columns) permuted = true;
            if (linear->op == OP_AWQ_DEQUANT && elements > *dequantized) *dequantized = elements;
        }
    return permuted;
}

/* Greedy, until model_sample says otherwise. */
static int take_sampling(struct model *model, struct error *error) {
    const struct ops_sampling greedy = sampling_parameters(&(struct sampling){.top_p = 1, .repetition_penalty = 1});
    struct buffers *b = &model->buffers;
    size_t sequences = (size_t)model->options.sequences, *total = &model->scratch_bytes;
    size_t counts = sequences * OPS_BINS * sizeof *b->counts, seen = sequences * ops_seen_bytes(forward_width(model));
    if (!(b->counts = take(model, counts, total, error)) || !(b->seen = take(model, seen, total, error)) ||
        !(b->sampling = take(model, sequences * sizeof *b->sampling, total, error)) ||
        device_fill(model->device, b->counts, 0, counts, error) || device_fill(model->device, b->seen, 0, seen, error))
        return -1;
    for (size_t i = 0; i < sequences; i++)
        if (device_write(model->device, &b->sampling[i], &greedy, sizeof greedy, error)) return -1;
    return 0;
}

static int take_scratch(struct model *model, struct error *error) {
    const struct model_config *c = model->config;
    struct buffers *b = &model->buffers;
    int sequences = model->options.sequences, rows = model->options.chunk, scored = model->options.scored;
    size_t m = (size_t)(rows > sequences ? rows : sequences), hidden = (size_t)c->hidden,
           inner = (size_t)c->intermediate;
    size_t logits = (size_t)(sequences > scored ? sequences : scored) * (size_t)forward_width(model);
    size_t q = (size_t)c->heads * (size_t)c->head_dim, kv = (size_t)c->kv_heads * (size_t)c->head_dim;
    size_t ranks = (size_t)model->share.ranks, widest = q > hidden ? q : hidden, *total = &model->scratch_bytes,
           dequantized = 0;
    bool permuted = survey(model, &dequantized);
    size_t arrivals = ops_attend_arrivals(sequences, c->heads, c->kv_heads);
    size_t parts =
        ops_attend_parts(model->device, sequences, c->heads, c->kv_heads, model->options.context, c->head_dim);
    if (!(b->ids = take(model, (size_t)model->options.context * sizeof *b->ids, total, error)) ||
        !(b->residual = take(model, 2 * m * hidden, total, error)) ||
        !(b->x = take(model, 2 * m * widest, total, error)) ||
        !(b->qkv = take(model, 2 * m * (q + 2 * kv), total, error)) ||
        !(b->activation = take(model, 2 * m * inner, total, error)) ||
        !(b->logits = take(model, 2 * logits, total, error)) ||
        (ranks > 1 && !(b->head = take(model, 2 * logits / ranks, total, error))) ||
        !(b->frequency = take(model, 2 * (size_t)c->head_dim, total, error)) ||
        !(b->parts = take(model, parts, total, error)) || !(b->arrivals = take(model, arrivals, total, error)) ||
        !(b->picks = take(model, (size_t)sequences * OPS_PICKS * sizeof *b->picks, total, error)) ||
        device_fill(model->device, b->arrivals, 0, arrivals, error))
        return -1;
    size_t scores = (size_t)scored * sizeof *b->scores;
    if (scored && !(b->scores = take(model, scores, total, error))) return -1;
    if (permuted && !(b->gathered = take(model, 2 * m * (widest > inner ? widest : inner), total, error))) return -1;
    if (dequantized && !(b->dequantized = take(model, 2 * dequantized, total, error))) return -1;
    return model->options.samples ? take_sampling(model, error) : 0;
}

static int write_frequency(struct model *model, struct error *error) {
    size_t pairs = (size_t)model->config->head_dim / 2;
    float *frequency = malloc(pairs * sizeof *frequency);
    if (!frequency) return error_set(error, "out of memory");
    for (size_t i = 0; i < pairs; i++) frequency[i] = (float)pow(model->config->rope_theta, -(double)i / (double)pairs);
    int status = device_write(model->device, model->buffers.frequency, frequency, pairs * sizeof *frequency, error);
    free(frequency);
    return status;
}

/* Of all layers. */
static size_t page_bytes(const struct model *model) {
    return 2 * (size_t)model->config->layers * forward_page_bytes(model);
}

/* What the KV cache may take, of the device with the least: room stays for the workspaces, the graphs and the kernels
 * that are still to come. */
static size_t allowed_bytes(const struct model *model) {
    size_t available = SIZE_MAX;
    for (int i = 0; i < model->share.ranks; i++) {
        size_t here = device_memory_free(model->ranks[i]->device);
        available = here < available ? here : available;
    }
    size_t margin = available / 4;
    if (model->options.kv_limit) return model->options.kv_limit;
    return available - (margin < MARGIN ? margin : MARGIN);
}

static double gib(double bytes) {
    return bytes / (1 << 30);
}

/* What else needs less. */
static const char *or_fp8(const struct model *model) {
    return model->options.kv == KV_FP16 ? ", or --kv fp8," : "";
}

/* Pages of the KV cache; -1 if too few fit. */
static int count_pages(const struct model *model, struct error *error) {
    const struct model_options *o = &model->options;
    int wanted = o->pages ? o->pages : o->sequences * pages_for(o->context);
    if (!o->least_pages) return wanted;
    size_t page = page_bytes(model), allowed = allowed_bytes(model), fit = allowed / page;
    if (fit < (size_t)o->least_pages)
        return error_set(
            error,
            "KV cache: the longest sequence needs %.4g GiB; %.4g GiB %s (a smaller --ctx or --max-tokens%s needs "
            "less)",
            gib((double)o->least_pages * (double)page), gib((double)allowed),
            o->kv_limit ? "are allowed by --kv-memory" : "may be taken of what is free", or_fp8(model));
    return fit < (size_t)wanted ? (int)fit : wanted;
}

/* Of one rank. */
static int take_pages(struct model *model, int count, size_t table_bytes, struct error *error) {
    const struct model_options *o = &model->options;
    if (!(model->buffers.pages = take(model, table_bytes, &model->scratch_bytes, error))) return -1;
    model->buffers.kv = take(model, (size_t)count * page_bytes(model), &model->kv_bytes, error);
    if (model->buffers.kv) return 0;
    return error_prefix(error, "KV cache of %ld tokens for up to %d sequences (a smaller %s%s needs less)",
                        (long)count * OPS_PAGE, o->sequences, o->kv_limit ? "--kv-memory" : "--ctx or --batch",
                        or_fp8(model));
}

static int take_cache(struct model *model, struct error *error) {
    const struct model_options *o = &model->options;
    int count = count_pages(model, error);
    if (count < 0 || pages_create(count, o->sequences, o->context, &model->pages, error)) return -1;
    size_t row = (size_t)pages_pitch(model->pages) * sizeof *model->host_pages, rows = (size_t)o->sequences;
    if (!(model->host_pages = malloc(rows * row))) return error_set(error, "out of memory");
    for (int i = 0; i < model->share.ranks; i++) {
        struct model *rank = model->ranks[i];
        rank->pages = model->pages;
        if (take_pages(rank, count, (rows + 1) * row, error)) return -1;
    }
    return 0;
}

/* What one rank has of its own, but for the cache. */
static int set_up_rank(struct model *model, const struct model_config *whole, const struct checkpoint *checkpoint,
                       struct error *error) {
    const struct model_options *options = &model->options;
    if (ops_open(model->device, model->config->hidden, model->config->head_dim, options->kv, &model->ops, error))
        return -1;
    model->plans = plans_create(model->device, options->table);
    if (!model->plans) return error_set(error, "out of memory");
    if (weights_load(model->device, whole, &model->share, options->synthetic ? NULL : checkpoint, options->method,
                     options->seed, &model->weights, error))
        return -1;
    return take_scratch(model, error) || write_frequency(model, error) ? -1 : 0;
}

static int set_up(struct model *model, const struct model_config *whole, const struct checkpoint *checkpoint,
                  struct device *const *devices, struct error *error) {
    const struct model_options *options = &model->options;
    if (options->context < 1 || options->context > whole->max_position)
        return error_set(error,
                         "a context of %d tokens was asked; this model takes 1 to %d (config.json: "
                         "max_position_embeddings)",
                         options->context, whole->max_position);
    if (!options->synthetic && !checkpoint) return error_set(error, "neither a checkpoint nor synthetic weights");
    if (steps_create(devices, model->share.ranks, options->sequences, &model->steps, error)) return -1;
    for (int i = 0; i < model->share.ranks; i++) {
        struct model *rank = model->ranks[i];
        rank->steps = model->steps;
        if (set_up_rank(rank, whole, checkpoint, error))
            return model->share.ranks > 1 ? error_prefix(error, "rank %d (%s)", i, rank->device->id) : -1;
        rank->weights.embedding = model->weights.embedding;
    }
    model->host_logits = malloc((size_t)forward_width(model) * sizeof *model->host_logits);
    model->host_scores = malloc((size_t)options->scored * sizeof *model->host_scores + 1);
    model->host_seen = malloc(ops_seen_bytes(forward_width(model)));
    if (!model->host_logits || !model->host_scores || !model->host_seen) return error_set(error, "out of memory");
    return take_cache(model, error);
}

/* The ranks of a model, still empty. */
static int create_ranks(struct model *model, const struct model_config *part, struct device *const *devices,
                        struct error *error) {
    int ranks = model->share.ranks;
    model->ranks = calloc((size_t)ranks, sizeof *model->ranks);
    model->places = calloc(2 * (size_t)ranks, sizeof *model->places);
    model->workspaces = calloc((size_t)ranks, sizeof *model->workspaces);
    if (!model->ranks || !model->places || !model->workspaces) return error_set(error, "out of memory");
    for (int i = 0; i < ranks; i++) {
        struct model *rank = model->ranks[i] = i ? calloc(1, sizeof *rank) : model;
        if (!rank) return error_set(error, "out of memory");
        rank->device = devices[i];
        rank->part = *part;
        rank->config = &rank->part;
        rank->share = (struct share){i, ranks};
        rank->options = model->options;
    }
    return 0;
}

int model_create(struct device *device, const struct model_config *config, const struct checkpoint *checkpoint,
                 const struct model_options *options, struct model **result, struct error *error) {
    *result = NULL;
    const struct communicator *communicator = options->communicator;
    struct device *const *devices = communicator ? communicator->devices : &device;
    int ranks = communicator ? communicator->count : 1;
    struct model_config part;
    if (weights_check(config, options->method, ranks, error) || share_config(config, ranks, &part, error)) return -1;
    struct model *model = calloc(1, sizeof *model);
    if (!model) return error_set(error, "out of memory");
    *model = (struct model){.share.ranks = ranks, .options = *options};
    if (model->options.chunk > options->context) model->options.chunk = options->context;
    if (model->options.chunk < 1) model->options.chunk = 1;
    if (model->options.sequences < 1) model->options.sequences = 1;
    if (model->options.choices < 1) model->options.choices = config->vocab;
    if (create_ranks(model, &part, devices, error) || set_up(model, config, checkpoint, devices, error)) {
        model_destroy(model);
        return -1;
    }
    *result = model;
    return 0;
}

static void empty_rank(struct model *model) {
    struct buffers *b = &model->buffers;
    void *buffers[] = {b->ids,    b->residual,  b->x,    b->qkv,   b->activation, b->gathered, b->dequantized,
                       b->logits, b->frequency, b->kv,   b->parts, b->arrivals,   b->picks,    b->scores,
                       b->counts, b->sampling,  b->seen, b->pages, b->head};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) device_free(model->device, buffers[i]);
    plans_destroy(model->plans);
    plans_destroy(model->others);
    weights_free(&model->weights);
}

void model_destroy(struct model *model) {
    if (!model) return;
    steps_destroy(model->steps);
    for (int i = model->share.ranks - 1; i >= 0 && model->ranks; i--) {
        struct model *rank = model->ranks[i];
        if (rank) empty_rank(rank);
        if (i) free(rank);
    }
    pages_destroy(model->pages);
    free(model->ranks);
    free(model->places);
    free(model->workspaces);
    free(model->host_logits);
    free(model->host_scores);
    free(model->host_seen);
    free(model->host_pages);
    free(model);
}

/* --- tokens of one sequence --- */

int model_logits(struct model *model, int row, float *logits, struct error *error) {
    size_t vocab = (size_t)model->config->vocab;
    const uint16_t *from = model->buffers.logits + (size_t)row * (size_t)forward_width(model);
    if (device_read(model->device, model->host_logits, from, 2 * vocab, error)) return error_prefix(error, "logits");
    for (size_t i = 0; i < vocab; i++) logits[i] = half_to_float(model->host_logits[i]);
    return 0;
}

static int check_ids(const struct model *model, const int *ids, int count, struct error *error) {
    for (int i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= model->config->vocab)
            return error_set(error, "token id %d is outside the vocabulary of %d (config.json: vocab_size)", ids[i],
                             model->config->vocab);
    return 0;
}

static int check_position(const struct model *model, int sequence, int count, int position, struct error *error) {
    int reserved = pages_reserved(model->pages, sequence);
    if (count >= 1 && position >= 0 && count <= reserved - position) return 0;
    return error_set(error, "%d tokens at position %d do not fit the %d that are reserved, in a context of %d", count,
                     position, reserved, model->options.context);
}

static int check_sequences(const struct model *model, int count, struct error *error) {
    if (count >= 1 && count <= model->options.sequences) return 0;
    return error_set(error, "%d sequences, but the model was made for 1 to %d", count, model->options.sequences);
}

int model_reserve(struct model *model, int sequence, int tokens, struct error *error) {
    if (check_sequences(model, sequence + 1, error)) return -1;
    if (tokens >= 1 && tokens <= model->options.context) return pages_reserve(model->pages, sequence, tokens, error);
    return error_set(error, "%d tokens cannot be reserved, in a context of %d", tokens, model->options.context);
}

void model_release(struct model *model, int sequence) {
    pages_release(model->pages, sequence);
}

const struct pages *model_pages(const struct model *model) {
    return model->pages;
}

static int check_room(struct model *model, int sequence, int count, int position, struct error *error) {
    if (!pages_reserved(model->pages, sequence) && pages_reserve(model->pages, sequence, model->options.context, error))
        return -1;
    return check_position(model, sequence, count, position, error);
}

/* The pages of `count` sequences (NULL: the first ones) to the devices, for what will be enqueued: a step, or one
 * sequence's prompt. */
static int write_pages(struct model *model, const int *sequences, int count, bool prompt, struct error *error) {
    size_t pitch = (size_t)pages_pitch(model->pages), bytes = (size_t)count * pitch * sizeof *model->host_pages;
    for (int i = 0; i < count; i++)
        memcpy(model->host_pages + (size_t)i * pitch, pages_list(model->pages, sequences ? sequences[i] : i),
               pitch * sizeof *model->host_pages);
    for (int i = 0; i < model->share.ranks; i++) {
        struct model *rank = model->ranks[i];
        int32_t *to = prompt ? forward_prompt_pages(rank) : rank->buffers.pages;
        if (device_write(rank->device, to, model->host_pages, bytes, error)) return -1;
    }
    return 0;
}

/* What a prompt needs on the devices: all at once, so that its chunks do not wait for the host. */
static int write_prompt(struct model *model, int sequence, const int *ids, int count, struct error *error) {
    if (write_pages(model, &sequence, 1, true, error)) return -1;
    for (int i = 0; i < model->share.ranks; i++) {
        struct model *rank = model->ranks[i];
        if (device_write(rank->device, rank->buffers.ids, ids, (size_t)count * sizeof *ids, error)) return -1;
    }
    return 0;
}

/* Behind `done` tokens of `count`, of which the first is at `position`. */
static struct pass next_chunk(const struct model *model, int done, int count, int position) {
    int left = count - done, chunk = model->options.chunk;
    return (struct pass){.rows = left < chunk ? left : chunk, .position = position + done, .id = done};
}

static int run_chunks(struct model *model, int sequence, const int *ids, int count, int position, bool head,
                      struct error *error) {
    if (write_prompt(model, sequence, ids, count, error)) return -1;
    for (int done = 0; done < count;) {
        struct pass pass = next_chunk(model, done, count, position);
        done += pass.rows;
        pass.kept = done == count && head;
        if (forward_layers(model, &pass, error) || (pass.kept && forward_head(model, pass.rows - 1, 1, error)))
            return -1;
    }
    return 0;
}

static void allow_overlap(struct model *model, enum device_overlap overlap) {
    for (int i = 0; i < model->share.ranks; i++) device_overlap(model->ranks[i]->device, overlap);
}

/* Of the last token with `head` the logits, too. */
static int prefill(struct model *model, int sequence, const int *ids, int count, int position, bool head,
                   struct error *error) {
    if (check_sequences(model, sequence + 1, error) || check_room(model, sequence, count, position, error) ||
        check_ids(model, ids, count, error))
        return -1;
    nvtx_push("prefill");
    allow_overlap(model, OVERLAP_WEIGHTS);
    int status = run_chunks(model, sequence, ids, count, position, head, error);
    allow_overlap(model, OVERLAP_NOTHING);
    nvtx_pop();
    return status;
}

int model_prefill(struct model *model, int sequence, const int *ids, int count, int position, struct error *error) {
    return prefill(model, sequence, ids, count, position, true, error);
}

int model_forward(struct model *model, int sequence, const int *ids, int count, int position, float *logits,
                  struct error *error) {
    if (prefill(model, sequence, ids, count, position, logits, error)) return -1;
    return logits ? model_logits(model, 0, logits, error) : 0;
}

/* --- choosing --- */

int model_sample(struct model *model, int sequence, const struct sampling *sampling, const int *ids, int count,
                 struct error *error) {
    const struct ops_sampling parameters = sampling_parameters(sampling);
    size_t bytes = ops_seen_bytes(forward_width(model));
    if (!model->options.samples) return error_set(error, "the model was made without options.samples");
    if (check_sequences(model, sequence + 1, error) || check_ids(model, ids, count, error)) return -1;
    memset(model->host_seen, 0, bytes);
    for (int i = 0; i < count; i++) model->host_seen[ids[i] / 8] |= (uint8_t)(1 << ids[i] % 8);
    for (int i = 0; i < model->share.ranks; i++) {
        const struct model *rank = model->ranks[i];
        const struct buffers *b = &rank->buffers;
        if (device_write(rank->device, &b->sampling[sequence], &parameters, sizeof parameters, error) ||
            device_write(rank->device, b->seen + (size_t)sequence * bytes, model->host_seen, bytes, error))
            return -1;
    }
    return 0;
}

/* --- scores --- */

/* `rows` rows of the pass from `first` on, whose tokens' successors are known. */
static int score_rows(struct model *model, const struct pass *pass, int first, int rows, double *sum,
                      struct error *error) {
    const struct buffers *b = &model->buffers;
    double *scores = model->host_scores;
    struct ops_score score = {.logits = b->logits,
                              .targets = b->ids + pass->id + first + 1,
                              .scores = b->scores,
                              .rows = rows,
                              .width = forward_width(model),
                              .limit = model->config->vocab};
    if (forward_head(model, first, rows, error) || model->ops.functions->score(&model->ops, &score, error) ||
        device_read(model->device, scores, b->scores, (size_t)rows * sizeof *scores, error))
        return -1;
    for (int i = 0; i < rows; i++) {
        if (!isfinite(scores[i])) return error_set(error, "a logit is not finite");
        *sum += scores[i];
    }
    return 0;
}

/* One chunk, and whether a token follows it. */
static int score_chunk(struct model *model, const struct pass *pass, bool more, double *sum, struct error *error) {
    int count = more ? pass->rows : pass->rows - 1, most = model->options.scored;
    if (forward_layers(model, pass, error)) return -1;
    for (int first = 0; first < count; first += most)
        if (score_rows(model, pass, first, count - first < most ? count - first : most, sum, error)) return -1;
    return 0;
}

int model_score(struct model *model, const int *ids, int count, double *sum, struct error *error) {
    *sum = 0;
    if (!model->options.scored) return error_set(error, "the model was made without options.scored");
    if (check_room(model, 0, count, 0, error) || check_ids(model, ids, count, error) ||
        write_prompt(model, 0, ids, count, error))
        return -1;
    for (int done = 0; done < count;) {
        struct pass pass = next_chunk(model, done, count, 0);
        pass.kept = pass.rows;
        if (score_chunk(model, &pass, done + pass.rows < count, sum, error))
            return error_prefix(error, "token %d", done);
        done += pass.rows;
    }
    return 0;
}

/* --- steps --- */

/* What a step enqueues, for so many sequences. */
struct step {
    struct model *model;
    int count;
};

static int enqueue_step(void *context, struct error *error) {
    const struct step *step = context;
    struct model *model = step->model;
    const struct pass pass = {.rows = step->count, .kept = step->count, .step = true};
    if (forward_layers(model, &pass, error) || forward_head(model, 0, step->count, error)) return -1;
    return forward_op(model, -1, MODEL_CHOOSE, &pass, error);
}

static int enqueue_choice(void *context, struct error *error) {
    struct model *model = context;
    for (int i = 0; i < model->share.ranks; i++)
        if (forward_choose(model->ranks[i], 1, error)) return -1;
    return 0;
}

int model_choose(struct model *model, int sequence, int position, int *id, struct error *error) {
    const int nothing = 0;
    double seconds;
    if (check_sequences(model, sequence + 1, error) || check_position(model, sequence, 1, position, error) ||
        steps_begin(model->steps, &sequence, &nothing, &position, 1, error) ||
        steps_run(model->steps, true, enqueue_choice, model, error))
        return -1;
    return steps_take(model->steps, id, &seconds, error);
}

int model_begin(struct model *model, const int *sequences, const int *ids, const int *positions, int count,
                struct error *error) {
    if (check_sequences(model, count, error) || check_ids(model, ids, count, error)) return -1;
    for (int i = 0, least = INT_MAX; i < count; i++) {
        int sequence = sequences ? sequences[i] : i;
        if (check_sequences(model, sequence + 1, error) || check_room(model, sequence, 1, positions[i], error))
            return -1;
        int room = pages_reserved(model->pages, sequence) - positions[i];
        if (room >= least) continue;
        least = room;
        model->step_sequence = sequence;
        model->step_position = positions[i];
    }
    model->step_count = count;
    if (write_pages(model, sequences, count, false, error)) return -1;
    return steps_begin(model->steps, sequences, ids, positions, count, error);
}

int model_step(struct model *model, struct error *error) {
    struct step step = {model, model->step_count};
    if (check_position(model, model->step_sequence, 1, model->step_position, error) ||
        model_prepare_steps(model, step.count, error))
        return -1;
    model->step_position++;
    nvtx_push("token");
    int status = steps_run(model->steps, model->enter != NULL, enqueue_step, &step, error);
    nvtx_pop();
    return status;
}

int model_take(struct model *model, int *ids, double *seconds, struct error *error) {
    return steps_take(model->steps, ids, seconds, error);
}

/* --- preparing --- */

/* On one rank. */
static int use_table(struct model *model, const struct tile_table *table, struct error *error) {
    if (device_synchronize(model->device, error)) return -1;
    struct plans *plans = model->others;
    if (!plans || plans_table(plans) != table) {
        plans = plans_create(model->device, table);
        if (!plans) return error_set(error, "out of memory");
        plans_destroy(model->others);
    }
    model->others = model->plans;
    model->plans = plans;
    return 0;
}

int model_use(struct model *model, const struct tile_table *table, struct error *error) {
    if (plans_table(model->plans) == table) return 0;
    steps_forget(model->steps);
    for (int i = 0; i < model->share.ranks; i++)
        if (use_table(model->ranks[i], table, error)) return -1;
    return 0;
}

/* plans_expect or plans_prepare. */
typedef int plans_get(struct plans *plans, const struct problem *problem, struct error *error);

static int get_linear(struct model *model, const struct linear *linear, int m, plans_get *get, struct error *error) {
    struct problem problem = linear_problem(linear, m), dense = forward_dense_problem(linear, m);
    if (get(model->plans, &problem, error)) return -1;
    return linear->op == OP_AWQ_DEQUANT ? get(model->plans, &dense, error) : 0;
}

/* Of a pass of m rows, of which `kept` go through all of the last layer and the head. */
static int get_pass(struct model *model, int m, int kept, plans_get *get, struct error *error) {
    const struct linear *linear = model->weights.layers[0].linear;
    for (int which = 0; which < LAYER_LINEARS; which++)
        if ((m && get_linear(model, &linear[which], m, get, error)) ||
            (which != LINEAR_QKV && get_linear(model, &linear[which], kept, get, error)))
            return -1;
    return get_linear(model, &model->weights.head, kept, get, error);
}

/* Of a prompt: whole chunks, and what is left. */
static int get_prompt(struct model *model, int count, plans_get *get, struct error *error) {
    int chunk = model->options.chunk;
    if (get_pass(model, count < chunk ? count : chunk, 1, get, error)) return -1;
    return get_pass(model, count % chunk, 1, get, error);
}

int model_expect(struct model *model, int count, struct error *error) {
    return get_prompt(model, count, plans_expect, error);
}

/* Rank by rank: but for the epilogues of o and down, what one has compiled the next ones find in the cache. */
int model_prepare(struct model *model, int count, struct error *error) {
    for (int i = 0; i < model->share.ranks; i++)
        if (get_prompt(model->ranks[i], count, plans_expect, error) ||
            get_prompt(model->ranks[i], count, plans_prepare, error))
            return -1;
    return 0;
}

int model_expect_steps(struct model *model, int count, struct error *error) {
    if (check_sequences(model, count, error)) return -1;
    return get_pass(model, count, count, plans_expect, error);
}

int model_prepare_steps(struct model *model, int count, struct error *error) {
    struct step step = {model, count};
    if (check_sequences(model, count, error)) return -1;
    for (int i = 0; i < model->share.ranks; i++) {
        struct model *rank = model->ranks[i];
        if (get_pass(rank, count, count, plans_expect, error) || get_pass(rank, count, count, plans_prepare, error))
            return -1;
        model->workspaces[i] = plans_memory(rank->plans);
    }
    return steps_record(model->steps, count, enqueue_step, &step, model->workspaces, error);
}

/* --- telling --- */

static const char *const op_names[] = {[MODEL_EMBED] = "embed",
                                       [MODEL_INPUT_NORM] = "input_norm",
                                       [MODEL_QKV] = "qkv",
                                       [MODEL_ATTEND] = "attend",
                                       [MODEL_O] = "o",
                                       [MODEL_POST_NORM] = "post_norm",
                                       [MODEL_GATE_UP] = "gate_up",
                                       [MODEL_DOWN] = "down",
                                       [MODEL_FINAL_NORM] = "final_norm",
                                       [MODEL_HEAD] = "lm_head",
                                       [MODEL_CHOOSE] = "choose"};

const char *model_op_name(enum model_op op) {
    return op_names[op];
}

bool model_on_gpu(const struct model *model) {
    return model->device->backend == BACKEND_CUDA;
}

struct model_memory model_memory(const struct model *model) {
    return (struct model_memory){
        .weights = model->weights.bytes,
        .kv = model->kv_bytes,
        .kv_type = model->options.kv,
        .kv_tokens = (long)pages_count(model->pages) * OPS_PAGE,
        .scratch = model->scratch_bytes + plans_workspace(model->plans),
        .embedding = model->weights.embedding_bytes,
    };
}

void model_trace(struct model *model, model_enter *enter, void *context) {
    model->enter = enter;
    model->enter_context = context;
}

/* NULL for an op without weights. */
static const struct linear *op_linear(const struct model *model, int layer, enum model_op op) {
    const struct linear *linear = layer < 0 ? NULL : model->weights.layers[layer].linear;
    switch (op) {
    case MODEL_QKV:
        return &linear[LINEAR_QKV];
    case MODEL_O:
        return &linear[LINEAR_O];
    case MODEL_GATE_UP:
        return &linear[LINEAR_GATE_UP];
    case MODEL_DOWN:
        return &linear[LINEAR_DOWN];
    case MODEL_HEAD:
        return &model->weights.head;
    default:
        return NULL;
    }
}

double model_op_bytes(const struct model *model, int layer, enum model_op op, double positions) {
    const struct linear *linear = op_linear(model, layer, op);
    if (op == MODEL_ATTEND) return positions * 2 * (double)forward_position_bytes(model);
    return linear ? (double)linear_bytes(linear) : 0;
}

double model_op_flops(const struct model *model, int layer, enum model_op op, int rows, double pairs) {
    const struct linear *linear = op_linear(model, layer, op);
    if (op == MODEL_ATTEND) return pairs * 2 * 2 * model->config->heads * model->config->head_dim;
    return linear ? 2.0 * rows * linear->n * linear->k : 0;
}

double model_bytes_per_step(const struct model *model, double positions) {
    double bytes = model_op_bytes(model, -1, MODEL_HEAD, positions);
    for (int i = 0; i < model->config->layers; i++)
        for (enum model_op op = MODEL_INPUT_NORM; op <= MODEL_DOWN; op++)
            bytes += model_op_bytes(model, i, op, positions);
    return bytes;
}

void model_print_plans(const struct model *model, FILE *stream) {
    plans_print(model->plans, stream);
}

int model_misses(const struct model *model, struct misses *misses, struct error *error) {
    return plans_misses(model->plans, misses, error);
}
