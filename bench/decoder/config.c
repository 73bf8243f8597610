#include "bench/decoder/config.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "bench/decoder/jsonfile.h"

enum { CONFIG_BYTES = 4 << 20 };

static int read_architecture(const struct jsonfile *file, struct error *error) {
    const json_t *architectures = json_object_get(file->root, "architectures");
    const json_t *first = json_array_get(architectures, 0);
    const char *name = json_string_value(first), *act = "silu";
    if (architectures && !json_is_null(architectures)) {
        if (!name || json_array_size(architectures) != 1 || strcmp(name, "Qwen2ForCausalLM"))
            return jsonfile_refuse(file, "architectures", architectures, error, "[\"Qwen2ForCausalLM\"]");
    } else {
        const json_t *type = json_object_get(file->root, "model_type");
        if (!json_is_string(type) || strcmp(json_string_value(type), "qwen2"))
            return jsonfile_refuse(file, "model_type", type, error, "\"qwen2\" where \"architectures\" is missing");
    }
    if (jsonfile_string(file, file->root, "hidden_act", false, &act, error)) return -1;
    if (strcmp(act, "silu"))
        return jsonfile_refuse(file, "hidden_act", json_object_get(file->root, "hidden_act"), error, "\"silu\"");
    return 0;
}

static int read_shape(const struct jsonfile *file, struct model_config *config, struct error *error) {
    const struct {
        const char *field;
        bool required;
        int low, high, *value;
    } fields[] = {
        {"hidden_size", true, 1, 65536, &config->hidden},
        {"intermediate_size", true, 1, 262144, &config->intermediate},
        {"num_hidden_layers", true, 1, 1024, &config->layers},
        {"num_attention_heads", true, 1, 1024, &config->heads},
        {"num_key_value_heads", true, 1, 1024, &config->kv_heads},
        {"vocab_size", true, 1, 2097152, &config->vocab},
        {"max_position_embeddings", true, 1, 16777216, &config->max_position},
        {"head_dim", false, 2, 1024, &config->head_dim},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (jsonfile_integer(file, file->root, fields[i].field, fields[i].required, fields[i].low, fields[i].high,
                             fields[i].value, error))
            return -1;
    if (config->heads % config->kv_heads)
        return jsonfile_refuse(file, "num_key_value_heads", json_object_get(file->root, "num_key_value_heads"), error,
                               "a divisor of num_attention_heads, %d", config->heads);
    if (!config->head_dim && config->hidden % config->heads)
        return jsonfile_refuse(file, "num_attention_heads", json_object_get(file->root, "num_attention_heads"), error,
                               "a divisor of hidden_size, %d, unless there is a head_dim", config->hidden);
    if (!config->head_dim) config->head_dim = config->hidden / config->heads;
    if (config->head_dim % 2 || config->head_dim > 1024)
        return error_set(error,
                         "%s: head_dim (hidden_size / num_attention_heads where it is missing): found %d; "
                         "accepted: an even number up to 1024",
                         file->path, config->head_dim);
    return 0;
}

/* rope_scaling (transformers 4) or rope_parameters (5): only the plain rotation is implemented. */
static int check_rope(const struct jsonfile *file, const char *field, struct error *error) {
    const json_t *rope = json_object_get(file->root, field);
    if (!rope || json_is_null(rope)) return 0;
    const json_t *type = json_object_get(rope, "rope_type");
    if (!type) type = json_object_get(rope, "type");
    const char *name = type ? json_string_value(type) : "default";
    double rotary = 1;
    if (!json_is_object(rope) || !name || strcmp(name, "default"))
        return jsonfile_refuse(file, field, rope, error, "none, or rope_type \"default\"");
    return jsonfile_number(file, rope, "partial_rotary_factor", false, 1, 1, &rotary, error);
}

static int read_rope(const struct jsonfile *file, struct model_config *config, struct error *error) {
    if (check_rope(file, "rope_scaling", error) || check_rope(file, "rope_parameters", error)) return -1;
    const json_t *rope = json_object_get(file->root, "rope_parameters");
    bool nested = json_is_number(json_object_get(rope, "rope_theta"));
    return jsonfile_number(file, nested ? rope : file->root, "rope_theta", true, 1, 1e12, &config->rope_theta, error);
}

static int read_attention(const struct jsonfile *file, struct error *error) {
    bool sliding = false;
    if (jsonfile_bool(file, file->root, "use_sliding_window", false, &sliding, error)) return -1;
    if (sliding)
        return error_set(error, "%s: use_sliding_window: found true; accepted: false (full attention only)",
                         file->path);
    const json_t *types = json_object_get(file->root, "layer_types");
    for (size_t i = 0; i < json_array_size(types); i++) {
        const char *type = json_string_value(json_array_get(types, i));
        if (!type || strcmp(type, "full_attention"))
            return jsonfile_refuse(file, "layer_types", json_array_get(types, i), error, "\"full_attention\" only");
    }
    return 0;
}

static int read_dtype(const struct jsonfile *file, struct model_config *config, struct error *error) {
    const char *field = json_object_get(file->root, "dtype") ? "dtype" : "torch_dtype";
    const char *name = "float32"; /* what transformers takes where the field is missing */
    if (jsonfile_string(file, file->root, field, false, &name, error)) return -1;
    if (strcmp(name, "bfloat16") && strcmp(name, "float16") && strcmp(name, "float32"))
        return jsonfile_refuse(file, field, json_object_get(file->root, field), error,
                               "\"bfloat16\", \"float16\" or \"float32\"");
    snprintf(config->dtype, sizeof config->dtype, "%s", name);
    return 0;
}

/* An integer or a list of them; absent or null leaves what is there. */
static int read_eos(const struct jsonfile *file, struct model_config *config, struct error *error) {
    enum { MOST = sizeof config->eos / sizeof *config->eos };
    const json_t *eos = json_object_get(file->root, "eos_token_id");
    if (!eos || json_is_null(eos)) return 0;
    size_t count = json_is_array(eos) ? json_array_size(eos) : 1;
    if (count > MOST) return jsonfile_refuse(file, "eos_token_id", eos, error, "at most %d ids", MOST);
    for (size_t i = 0; i < count; i++) {
        const json_t *id = json_is_array(eos) ? json_array_get(eos, i) : eos;
        json_int_t value = json_integer_value(id);
        if (!json_is_integer(id) || value < 0 || value > INT_MAX)
            return jsonfile_refuse(file, "eos_token_id", eos, error, "an id or a list of ids from 0 on");
        config->eos[i] = (int)value;
    }
    config->eos_count = (int)count;
    return 0;
}

/* --- quantisation --- */

static int refuse_unless(const struct jsonfile *file, const json_t *object, const char *field, const char *accepted,
                         struct error *error) {
    const char *text = accepted;
    if (jsonfile_string(file, object, field, false, &text, error)) return -1;
    if (!strcasecmp(text, accepted)) return 0;
    return jsonfile_refuse(file, field, json_object_get(object, field), error, "\"%s\"", accepted);
}

static int read_awq(const struct jsonfile *file, const json_t *quant, struct error *error) {
    bool zero_point = true;
    if (jsonfile_bool(file, quant, "zero_point", false, &zero_point, error)) return -1;
    if (!zero_point) return error_set(error, "%s: zero_point: found false; accepted: true", file->path);
    const char *backend = "autoawq";
    if (jsonfile_string(file, quant, "backend", false, &backend, error)) return -1;
    if (!strcasecmp(backend, "llm-awq"))
        return error_set(error,
                         "%s: backend: found \"llm-awq\", whose file layout (int16, rows interleaved by 4) is not "
                         "AWQ's \"gemm\"; accepted: \"autoawq\"; quantise again with version \"gemm\"",
                         file->path);
    return refuse_unless(file, quant, "version", "gemm", error);
}

static int read_gptq(const struct jsonfile *file, const json_t *quant, struct model_config *config,
                     struct error *error) {
    if (jsonfile_bool(file, quant, "sym", true, &config->symmetric, error) ||
        jsonfile_bool(file, quant, "desc_act", true, &config->desc_act, error))
        return -1;
    const json_t *format = json_object_get(quant, "checkpoint_format");
    if (format && !json_is_null(format)) {
        const char *name = json_string_value(format);
        config->gptq_v2 = name && !strcmp(name, "gptq_v2");
        if (!name || (!config->gptq_v2 && strcmp(name, "gptq")))
            return jsonfile_refuse(file, "checkpoint_format", format, error, "\"gptq\" or \"gptq_v2\"");
    }
    bool marlin = false, head = false;
    if (jsonfile_bool(file, quant, "is_marlin_format", false, &marlin, error) ||
        jsonfile_bool(file, quant, "lm_head", false, &head, error))
        return -1;
    if (marlin) return error_set(error, "%s: is_marlin_format: found true; accepted: false", file->path);
    if (head) return error_set(error, "%s: lm_head: found true; accepted: false (lm_head unquantised)", file->path);
    const json_t *dynamic = json_object_get(quant, "dynamic");
    if (json_object_size(dynamic) || json_array_size(dynamic))
        return jsonfile_refuse(file, "dynamic", dynamic, error, "none: all layers alike");
    return 0;
}

/* Layers left in fp16 are not implemented; lm_head always is, so naming it changes nothing. */
static int check_modules(const struct jsonfile *file, const json_t *quant, struct error *error) {
    const json_t *modules = json_object_get(quant, "modules_to_not_convert");
    if (!modules || json_is_null(modules)) return 0;
    const char *first = json_string_value(json_array_get(modules, 0));
    size_t count = json_array_size(modules);
    if (json_is_array(modules) && (count == 0 || (count == 1 && first && !strcmp(first, "lm_head")))) return 0;
    return jsonfile_refuse(file, "modules_to_not_convert", modules, error, "null, [] or [\"lm_head\"]");
}

static int read_group(const struct jsonfile *file, const json_t *quant, struct model_config *config,
                      struct error *error) {
    int bits = 0, group = 0;
    if (jsonfile_integer(file, quant, "bits", true, INT_MIN, INT_MAX, &bits, error) ||
        jsonfile_integer(file, quant, "group_size", true, INT_MIN, INT_MAX, &group, error))
        return -1;
    if (bits != 4) return jsonfile_refuse(file, "bits", json_object_get(quant, "bits"), error, "4");
    if (group != 32 && group != 64 && group != 128 && group != -1)
        return jsonfile_refuse(file, "group_size", json_object_get(quant, "group_size"), error,
                               "32, 64, 128, or -1 (one group for all of K)");
    config->group_all = group == -1;
    config->group = config->group_all ? 0 : group;
    return 0;
}

static int read_quantization(const struct jsonfile *file, const json_t *quant, const char *assumed,
                             struct model_config *config, struct error *error) {
    const char *method = assumed;
    if (!json_is_object(quant)) return jsonfile_refuse(file, "quantization_config", quant, error, "an object");
    if (jsonfile_string(file, quant, "quant_method", !assumed, &method, error)) return -1;
    if (!strcmp(method, "awq"))
        config->quant = QUANT_AWQ;
    else if (!strcmp(method, "gptq"))
        config->quant = QUANT_GPTQ;
    else
        return jsonfile_refuse(file, "quant_method", json_object_get(quant, "quant_method"), error,
                               "\"awq\" or \"gptq\"");
    if (read_group(file, quant, config, error) || check_modules(file, quant, error)) return -1;
    return config->quant == QUANT_AWQ ? read_awq(file, quant, error) : read_gptq(file, quant, config, error);
}

/* config.json's own word comes first; AutoGPTQ once wrote a file beside it. */
static int find_quantization(const char *directory, const struct jsonfile *file, struct model_config *config,
                             struct error *error) {
    const json_t *quant = json_object_get(file->root, "quantization_config");
    config->quant_file = "config.json";
    if (quant && !json_is_null(quant)) return read_quantization(file, quant, NULL, config, error);
    if (jsonfile_exists(directory, "quant_config.json"))
        return error_set(error,
                         "%s/quant_config.json: the layout of llm-awq and of early AutoAWQ is not read; accepted: "
                         "quantization_config in config.json, as AutoAWQ writes with version \"gemm\"",
                         directory);
    if (!jsonfile_exists(directory, "quantize_config.json")) return 0;
    struct jsonfile beside;
    config->quant_file = "quantize_config.json";
    if (jsonfile_read(directory, config->quant_file, CONFIG_BYTES, &beside, error)) return -1;
    int status = read_quantization(&beside, beside.root, "gptq", config, error);
    jsonfile_close(&beside);
    return status;
}

/* --- the files --- */

static int read_generation(const char *directory, struct model_config *config, struct error *error) {
    struct jsonfile file;
    config->temperature = config->top_p = config->repetition_penalty = 1;
    if (!jsonfile_exists(directory, "generation_config.json")) return 0;
    if (jsonfile_read(directory, "generation_config.json", CONFIG_BYTES, &file, error)) return -1;
    const json_t *root = file.root;
    int status =
        read_eos(&file, config, error) ||
        jsonfile_number(&file, root, "temperature", false, 0, 1e3, &config->temperature, error) ||
        jsonfile_number(&file, root, "top_p", false, 0, 1, &config->top_p, error) ||
        jsonfile_number(&file, root, "repetition_penalty", false, 1e-3, 1e3, &config->repetition_penalty, error) ||
        jsonfile_integer(&file, root, "top_k", false, 0, INT_MAX, &config->top_k, error) ||
        jsonfile_bool(&file, root, "do_sample", false, &config->do_sample, error);
    jsonfile_close(&file);
    return status ? -1 : 0;
}

static int read_model(const struct jsonfile *file, struct model_config *config, struct error *error) {
    config->synthetic = json_object_get(file->root, "tilebook_synthetic") != NULL;
    if (read_architecture(file, error) || read_shape(file, config, error) || read_rope(file, config, error) ||
        read_attention(file, error) || read_dtype(file, config, error) || read_eos(file, config, error) ||
        jsonfile_bool(file, file->root, "tie_word_embeddings", false, &config->tied, error) ||
        jsonfile_number(file, file->root, "rms_norm_eps", true, 0, 1, &config->rms_eps, error))
        return -1;
    return 0;
}

int model_config_read(const char *directory, struct model_config *config, struct error *error) {
    struct stat status;
    struct jsonfile file;
    *config = (struct model_config){0};
    if (stat(directory, &status) || !S_ISDIR(status.st_mode))
        return error_set(error,
                         "%s: no such directory; accepted: a Hugging Face model directory, or one that "
                         "`tilebook model make` wrote",
                         directory);
    if (!jsonfile_exists(directory, "config.json"))
        return error_set(error, "%s: there is no config.json; accepted: a Hugging Face model directory", directory);
    if (jsonfile_read(directory, "config.json", CONFIG_BYTES, &file, error)) return -1;
    int failed = read_model(&file, config, error) || find_quantization(directory, &file, config, error) ||
                 read_generation(directory, config, error);
    jsonfile_close(&file);
    return failed ? -1 : 0;
}

/* From the config.json and generation_config.json of the Instruct models. */
static const struct named_model {
    const char *name;
    int hidden, intermediate, layers, heads, kv_heads, vocab;
    double repetition_penalty;
    bool tied;
} named_models[] = {
    {"qwen2.5-0.5b", 896, 4864, 24, 14, 2, 151936, 1.1, true},
    {"qwen2.5-1.5b", 1536, 8960, 28, 12, 2, 151936, 1.1, true},
    {"qwen2.5-3b", 2048, 11008, 36, 16, 2, 151936, 1.05, true},
    {"qwen2.5-7b", 3584, 18944, 28, 28, 4, 152064, 1.05, false},
    {"qwen2.5-14b", 5120, 13824, 48, 40, 8, 152064, 1.05, false},
    {"qwen2.5-32b", 5120, 27648, 64, 40, 8, 152064, 1.05, false},
    {"qwen2.5-72b", 8192, 29568, 80, 64, 8, 152064, 1.05, false},
};
enum { NAMED_MODELS = sizeof named_models / sizeof *named_models };

static int unknown_model(const char *name, struct error *error) {
    char known[256] = "";
    for (int i = 0; i < NAMED_MODELS; i++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", named_models[i].name);
    }
    return error_set(error, "'%s' is neither a directory nor a known model; known: %s", name, known);
}

int model_config_named(const char *name, struct model_config *config, struct error *error) {
    int i = 0;
    while (i < NAMED_MODELS && strcmp(name, named_models[i].name)) i++;
    if (i == NAMED_MODELS) return unknown_model(name, error);
    const struct named_model *m = &named_models[i];
    *config = (struct model_config){.hidden = m->hidden,
                                    .intermediate = m->intermediate,
                                    .layers = m->layers,
                                    .heads = m->heads,
                                    .kv_heads = m->kv_heads,
                                    .head_dim = m->hidden / m->heads,
                                    .vocab = m->vocab,
                                    .max_position = 32768,
                                    .rms_eps = 1e-6,
                                    .rope_theta = 1e6,
                                    .tied = m->tied,
                                    .dtype = "bfloat16",
                                    .quant_file = "config.json",
                                    .eos = {151645, 151643},
                                    .eos_count = 2,
                                    .temperature = 0.7,
                                    .top_p = 0.8,
                                    .repetition_penalty = m->repetition_penalty,
                                    .top_k = 20,
                                    .do_sample = true};
    return 0;
}

bool model_config_ends(const struct model_config *config, int id) {
    for (int i = 0; i < config->eos_count; i++)
        if (config->eos[i] == id) return true;
    return false;
}
