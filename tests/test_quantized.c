/* Every int4 format, group size and kind of zero point that a checkpoint can have, on a model made here: the same
 * codes are stored in each format, and as the fp16 weights that they stand for, which is the oracle. One device has all
 * of it, or two share it. */
#include "bench/decoder/tensors.h"
#include "kernels/formats/formats.h"
#include "kernels/half.h"
#include "tests/golden.h"
#include "tests/model_dir.h"

enum { VOCAB = 192, TOKENS = 5 };

struct variant {
    enum quant_method quant;
    int group; /* -1: one for all of K */
    bool v2, symmetric, desc_act;
    bool no_index; /* g_idx left out */
};

static char directory[64];

/* --- one matrix: numbers that follow from its name and an index --- */

struct matrix {
    const struct variant *variant; /* whose numbers, also where they are stored as fp16 */
    char name[64];
    int k, n, group;
};

static uint32_t draw(const struct matrix *matrix, char kind, long index) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (const char *c = matrix->name; *c; c++) hash = (hash ^ (unsigned char)*c) * 0x100000001b3u;
    hash = (hash ^ (uint64_t)kind ^ (uint64_t)index << 8) * 0x9e3779b97f4a7c15u;
    hash = (hash ^ hash >> 32) * 0xd6e8feb86659fd93u;
    return (uint32_t)(hash >> 32);
}

/* 7 shares no factor with any K here, so that desc_act's groups are shuffled and of one size. */
static int group_of(const struct matrix *matrix, int k) {
    return (matrix->variant->desc_act ? (7 * k + 3) % matrix->k : k) / matrix->group;
}

static uint8_t code(const struct matrix *matrix, int k, int n) {
    return draw(matrix, 'q', (long)k * matrix->n + n) & 15;
}

static uint8_t zero(const struct matrix *matrix, int group, int n) {
    return matrix->variant->symmetric ? 8 : draw(matrix, 'z', (long)group * matrix->n + n) & 15;
}

/* Powers of two: (q - z) * s is exact in fp16. */
static float scale(const struct matrix *matrix, int group, int n) {
    return 0x1p-8f * (float)(1 << draw(matrix, 's', (long)group * matrix->n + n) % 3);
}

static float weight(const struct matrix *matrix, int k, int n) {
    int group = group_of(matrix, k);
    return (float)(code(matrix, k, n) - zero(matrix, group, n)) * scale(matrix, group, n);
}

/* --- its tensors --- */

static void write_codes(const struct matrix *matrix, uint32_t *words) {
    uint8_t *codes = malloc((size_t)matrix->k * (size_t)matrix->n);
    for (int k = 0; k < matrix->k; k++)
        for (int n = 0; n < matrix->n; n++) codes[k * matrix->n + n] = code(matrix, k, n);
    (matrix->variant->quant == QUANT_AWQ ? awq_pack : gptq_pack)(codes, matrix->k, matrix->n, words);
    free(codes);
}

static void write_zeros(const struct matrix *matrix, uint32_t *words) {
    int groups = matrix->k / matrix->group;
    uint8_t *zeros = malloc((size_t)groups * (size_t)matrix->n);
    for (int group = 0; group < groups; group++)
        for (int n = 0; n < matrix->n; n++) zeros[group * matrix->n + n] = zero(matrix, group, n);
    if (matrix->variant->quant == QUANT_AWQ)
        awq_pack(zeros, groups, matrix->n, words);
    else
        gptq_pack_zeros(zeros, groups, matrix->n, !matrix->variant->v2, words);
    free(zeros);
}

static void write_scales(const struct matrix *matrix, uint16_t *to) {
    for (int group = 0; group < matrix->k / matrix->group; group++)
        for (int n = 0; n < matrix->n; n++) *to++ = half_from_float(scale(matrix, group, n));
}

static void write_weights(const struct matrix *matrix, uint16_t *to) {
    for (int n = 0; n < matrix->n; n++)
        for (int k = 0; k < matrix->k; k++) *to++ = half_from_float(weight(matrix, k, n));
}

/* What no format changes: embeddings, head, norms and biases, in [-0.5, 0.5). */
static void write_plain(const struct matrix *matrix, size_t count, uint16_t *to) {
    for (size_t i = 0; i < count; i++) to[i] = half_from_float((float)draw(matrix, 'p', (long)i) * 0x1p-32f - 0.5f);
}

static struct matrix matrix_of(const struct variant *variant, const struct tensor_spec *spec) {
    bool awq = variant->quant == QUANT_AWQ;
    int rows = (int)spec->shape[0], columns = (int)spec->shape[1];
    struct matrix matrix = {.variant = variant, .group = variant->group};
    snprintf(matrix.name, sizeof matrix.name, "%.*s", (int)(strrchr(spec->name, '.') - spec->name), spec->name);
    switch (spec->role) {
    case ROLE_CODES:
        matrix.k = awq ? rows : 8 * rows;
        matrix.n = awq ? 8 * columns : columns;
        break;
    case ROLE_WEIGHT:
        matrix.k = columns;
        matrix.n = rows;
        break;
    default: /* K of zero points and scales follows from the groups, if there are several */
        matrix.k = variant->group < 0 ? 1 : rows * variant->group;
        matrix.n = spec->role == ROLE_ZEROS ? 8 * columns : columns;
    }
    if (spec->role == ROLE_GROUP_INDEX) matrix.k = rows;
    if (variant->group < 0) matrix.group = matrix.k;
    return matrix;
}

static void write_tensor(const struct variant *variant, const struct tensor_spec *spec, void *to) {
    struct matrix matrix = matrix_of(variant, spec);
    switch (spec->role) {
    case ROLE_CODES:
        write_codes(&matrix, to);
        break;
    case ROLE_ZEROS:
        write_zeros(&matrix, to);
        break;
    case ROLE_SCALES:
        write_scales(&matrix, to);
        break;
    case ROLE_GROUP_INDEX:
        for (int k = 0; k < matrix.k; k++) ((int32_t *)to)[k] = group_of(&matrix, k);
        break;
    default:
        if (spec->role == ROLE_WEIGHT && strstr(spec->name, "_proj."))
            write_weights(&matrix, to);
        else
            write_plain(&matrix, spec->bytes / 2, to);
    }
}

/* --- the files --- */

static void write_config(const struct variant *variant, bool quantized) {
    char text[1024], quant[256] = "";
    if (quantized)
        snprintf(quant, sizeof quant,
                 ", \"quantization_config\": {\"bits\": 4, \"quant_method\": \"%s\", \"group_size\": %d, \"sym\": %s, "
                 "\"desc_act\": %s%s}",
                 variant->quant == QUANT_AWQ ? "awq" : "gptq", variant->group, variant->symmetric ? "true" : "false",
                 variant->desc_act ? "true" : "false", variant->v2 ? ", \"checkpoint_format\": \"gptq_v2\"" : "");
    snprintf(text, sizeof text,
             "{\"architectures\": [\"Qwen2ForCausalLM\"], \"hidden_size\": 256, \"intermediate_size\": 512, "
             "\"num_hidden_layers\": 1, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"vocab_size\": %d, "
             "\"max_position_embeddings\": 64, \"rope_theta\": 10000, \"rms_norm_eps\": 1e-6, "
             "\"torch_dtype\": \"float16\"%s}",
             VOCAB, quant);
    model_dir_text(directory, "config.json", text);
}

/* The model in `directory`: with the variant's own tensors or, not quantised, with what they stand for. */
static void write_model(const struct variant *variant, bool quantized) {
    struct error error = {""};
    struct model_config config;
    struct tensor_spec *specs;
    int count;
    write_config(variant, quantized);
    must(model_config_read(directory, &config, &error), &error);
    must(tensor_specs(&config, &specs, &count, &error), &error);
    json_t *header = json_object();
    unsigned char *data = NULL;
    size_t bytes = 0;
    for (int i = 0; i < count; i++) {
        const struct tensor_spec *spec = &specs[i];
        if (spec->role == ROLE_GROUP_INDEX && variant->no_index) continue;
        json_t *shape = json_pack("[I]", (json_int_t)spec->shape[0]);
        if (spec->rank == 2) json_array_append_new(shape, json_integer(spec->shape[1]));
        json_object_set_new(header, spec->name,
                            json_pack("{s:s, s:o, s:[I, I]}", "dtype", spec->dtype == DTYPE_I32 ? "I32" : "F16",
                                      "shape", shape, "data_offsets", (json_int_t)bytes,
                                      (json_int_t)(bytes + spec->bytes)));
        data = realloc(data, bytes + spec->bytes);
        write_tensor(variant, spec, data + bytes);
        bytes += spec->bytes;
    }
    char *text = json_dumps(header, JSON_COMPACT);
    uint64_t length = strlen(text);
    unsigned char *file = malloc(8 + length + bytes);
    memcpy(file, &length, 8);
    memcpy(file + 8, text, length);
    memcpy(file + 8 + length, data, bytes);
    model_dir_write(directory, "model.safetensors", file, 8 + length + bytes);
    json_decref(header);
    free(text);
    free(file);
    free(data);
    free(specs);
}

static int run_model(enum method method, int ranks, float logits[VOCAB], struct error *error) {
    const int ids[TOKENS] = {3, 1, 4, 1, 5};
    struct communicator *communicator;
    struct model_config config;
    struct checkpoint *checkpoint;
    struct model *model;
    struct model_options options = {.method = method, .context = TOKENS, .chunk = TOKENS};
    must(communicator_open("cpu", ranks, &communicator, error), error);
    must(model_config_read(directory, &config, error), error);
    must(checkpoint_open(directory, &checkpoint, error), error);
    options.communicator = communicator;
    int status = model_create(communicator->devices[0], &config, checkpoint, &options, &model, error);
    if (!status) must(model_forward(model, 0, ids, TOKENS, 0, logits, error), error);
    model_destroy(model);
    checkpoint_close(checkpoint);
    communicator_close(communicator);
    return status;
}

/* --- comparisons --- */

/* Two devices, which cannot share the rows of a matrix where those of a group lie anywhere: so desc_act has it, unless
 * all of them are one group. */
static void check_shared(const struct variant *v, const float expected[VOCAB]) {
    bool awq = v->quant == QUANT_AWQ;
    const enum method methods[] = {awq ? METHOD_AWQ : METHOD_GPTQ, awq ? METHOD_AWQ_MARLIN : METHOD_GPTQ_MARLIN};
    float shared[VOCAB];
    for (int i = 0; i < 2; i++) {
        struct error error = {""};
        if (v->desc_act && v->group > 0) {
            assert_int_equal(run_model(methods[i], 2, shared, &error), -1);
            assert_says(error.text, "rank 0|layer 0|o_proj|desc_act|--tp");
            continue;
        }
        must(run_model(methods[i], 2, shared, &error), &error);
        double off = relative_error(shared, expected, VOCAB);
        if (!(off <= GOLDEN_TOLERANCE)) fail_msg("%s on two devices: off by %g", method_name(methods[i]), off);
    }
}

/* Words that are dequantised are the oracle's weights bit for bit, and so are its logits, unless desc_act orders the
 * sums otherwise; a GEMM on the words themselves rounds elsewhere. */
static void check_variant(const struct variant *v) {
    bool awq = v->quant == QUANT_AWQ;
    float expected[VOCAB], plain[VOCAB], marlin[VOCAB];
    struct error error = {""};
    write_model(v, false);
    must(run_model(METHOD_NONE, 1, expected, &error), &error);
    write_model(v, true);
    must(run_model(awq ? METHOD_AWQ : METHOD_GPTQ, 1, plain, &error), &error);
    must(run_model(awq ? METHOD_AWQ_MARLIN : METHOD_GPTQ_MARLIN, 1, marlin, &error), &error);
    double off = relative_error(plain, expected, VOCAB), marlin_off = relative_error(marlin, expected, VOCAB);
    if (!(off <= (v->desc_act ? GOLDEN_TOLERANCE : 0) && marlin_off <= GOLDEN_TOLERANCE))
        fail_msg("%s%s, group %d, sym %d, desc_act %d: off by %g, in Marlin's layout by %g", awq ? "awq" : "gptq",
                 v->v2 ? " v2" : "", v->group, v->symmetric, v->desc_act, off, marlin_off);
    check_shared(v, expected);
}

static const int groups[] = {32, 64, 128, -1};

static void awq(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) check_variant(&(struct variant){.quant = QUANT_AWQ, .group = groups[i]});
}

static void check_gptq(bool v2) {
    for (int i = 0; i < 16; i++)
        check_variant(&(struct variant){
            .quant = QUANT_GPTQ, .group = groups[i / 4], .v2 = v2, .symmetric = i % 2, .desc_act = i / 2 % 2});
}

static void gptq_v1(void **state) {
    (void)state;
    check_gptq(false);
}

static void gptq_v2(void **state) {
    (void)state;
    check_gptq(true);
}

static void gptq_without_g_idx(void **state) {
    (void)state;
    check_variant(&(struct variant){.quant = QUANT_GPTQ, .group = 64, .no_index = true});
}

static int set_up(void **state) {
    (void)state;
    model_dir_make(directory);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    model_dir_remove(directory);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(awq),
        cmocka_unit_test(gptq_v1),
        cmocka_unit_test(gptq_v2),
        cmocka_unit_test(gptq_without_g_idx),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
