#include "bench/decoder/synthetic.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "bench/decoder/jsonfile.h"
#include "bench/decoder/tensors.h"
#include "kernels/half.h"

/* 4 GB cuts Qwen2.5-14B as it is published: 8 files unquantised, 3 at 4 bits. */
enum { TABLE = 4096, CHUNK = 4 << 20 };
#define SHARD_BYTES INT64_C(4000000000)

struct synthesis {
    const struct synthetic_options *options;
    struct tensor_spec *specs;
    int *shard; /* of each tensor, from 0 */
    int count, shards;
    int64_t total;
    uint16_t weights[TABLE], norms[TABLE], scales[TABLE]; /* equally likely values, as 16-bit floats */
    uint64_t *chunk;                                      /* CHUNK bytes */
};

/* --- numbers --- */

/* The index-th word of a stream (SplitMix64): words do not wait for each other. */
static inline uint64_t random_word(uint64_t stream, uint64_t index) {
    uint64_t z = stream + (index + 1) * 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* Each tensor has its own stream, whatever file it lands in. */
static uint64_t stream_of(const char *name, int64_t seed) {
    uint64_t hash = 0xcbf29ce484222325;
    for (; *name; name++) hash = (hash ^ (unsigned char)*name) * 0x100000001b3;
    return random_word((uint64_t)seed, hash);
}

/* Values of the normal distribution: the Box-Muller transform over a 64 x 64 grid. */
static void make_tables(struct synthesis *s) {
    bool half = !strcmp(s->options->config.dtype, "float16");
    for (int i = 0; i < TABLE; i++) {
        double u = (i / 64 + 0.5) / 64, angle = 2 * M_PI * (i % 64 + 0.5) / 64;
        double normal = sqrt(-2 * log(u)) * cos(angle), uniform = (i + 0.5) / TABLE;
        float weight = (float)(SYNTHETIC_WEIGHT_STD * normal), norm = (float)(1 + SYNTHETIC_NORM_STD * normal);
        float scale = (float)(SYNTHETIC_SCALE_LOW + (SYNTHETIC_SCALE_HIGH - SYNTHETIC_SCALE_LOW) * uniform);
        s->weights[i] = half ? half_from_float(weight) : bf16_from_float(weight);
        s->norms[i] = half ? half_from_float(norm) : bf16_from_float(norm);
        s->scales[i] = half_from_float(scale);
    }
}

/* Four table entries from one random word. */
static void fill_table(uint64_t *to, size_t words, const uint16_t *table, uint64_t stream, uint64_t first) {
    for (size_t i = 0; i < words; i++) {
        uint64_t bits = random_word(stream, first + i);
        to[i] = (uint64_t)table[bits % TABLE] | (uint64_t)table[(bits >> 16) % TABLE] << 16 |
                (uint64_t)table[(bits >> 32) % TABLE] << 32 | (uint64_t)table[(bits >> 48) % TABLE] << 48;
    }
}

/* Nibbles base + bit, with the random bits that the mask leaves. */
static void fill_nibbles(uint64_t *to, size_t words, uint64_t base, uint64_t mask, uint64_t stream, uint64_t first) {
    for (size_t i = 0; i < words; i++) to[i] = base + (random_word(stream, first + i) & mask);
}

/* Two entries of g_idx in a word. */
static void fill_group_index(uint64_t *to, size_t words, uint64_t first, uint64_t group) {
    for (size_t i = 0; i < words; i++) {
        uint64_t row = 2 * (first + i);
        to[i] = row / group | (row + 1) / group << 32;
    }
}

/* Words first ... first + words - 1 of a tensor. */
static void fill(const struct synthesis *s, const struct tensor_spec *spec, uint64_t first, size_t words) {
    const struct model_config *config = &s->options->config;
    uint64_t stream = stream_of(spec->name, s->options->seed), *to = s->chunk;
    switch (spec->role) {
    case ROLE_WEIGHT:
    case ROLE_BIAS:
        fill_table(to, words, s->weights, stream, first);
        break;
    case ROLE_NORM:
        fill_table(to, words, s->norms, stream, first);
        break;
    case ROLE_SCALES:
        fill_table(to, words, s->scales, stream, first);
        break;
    case ROLE_CODES:
        fill_nibbles(to, words, 0, UINT64_MAX, stream, first);
        break;
    case ROLE_ZEROS: { /* GPTQ stores 8 as 7 */
        uint64_t mask = config->quant == QUANT_AWQ ? 0x1111111111111111 : 0;
        fill_nibbles(to, words, 0x7777777777777777, mask, stream, first);
        break;
    }
    case ROLE_GROUP_INDEX:
        fill_group_index(to, words, first, config->group_all ? UINT64_MAX : (uint64_t)config->group);
        break;
    }
}

/* --- files --- */

/* NAME.partial until it is whole. */
struct output {
    char path[PATH_MAX], partial[PATH_MAX + 16];
    int fd;
};

static int output_open(struct output *output, const char *directory, const char *name, struct error *error) {
    if (jsonfile_path(directory, name, output->path, error)) return -1;
    snprintf(output->partial, sizeof output->partial, "%s.partial", output->path);
    output->fd = open(output->partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (output->fd < 0) return error_set(error, "%s: %s", output->partial, strerror(errno));
    return 0;
}

static int output_write(struct output *output, const void *bytes, size_t count, struct error *error) {
    const char *from = bytes;
    while (count) {
        ssize_t written = write(output->fd, from, count);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return error_set(error, "%s: %s", output->partial, strerror(errno));
        from += written;
        count -= (size_t)written;
    }
    return 0;
}

/* Gives the file its name, or removes it if `status` says that it is not whole. */
static int output_close(struct output *output, int status, struct error *error) {
    if (close(output->fd) && !status) status = error_set(error, "%s: %s", output->partial, strerror(errno));
    if (!status && rename(output->partial, output->path))
        status = error_set(error, "%s: %s", output->path, strerror(errno));
    if (status) unlink(output->partial);
    return status;
}

static int write_json(const char *directory, const char *name, json_t *root, struct error *error) {
    struct output output;
    char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(15)) : NULL;
    json_decref(root);
    if (!text) return error_set(error, "%s/%s: out of memory", directory, name);
    int status = output_open(&output, directory, name, error);
    if (!status) {
        status = output_write(&output, text, strlen(text), error) ? -1 : output_write(&output, "\n", 1, error);
        status = output_close(&output, status, error);
    }
    free(text);
    return status;
}

static int copy_file(const char *from, const char *to, const char *name, char *buffer, struct error *error) {
    char path[PATH_MAX];
    struct output output;
    ssize_t got = 0;
    if (!jsonfile_exists(from, name)) return 0;
    if (jsonfile_path(from, name, path, error)) return -1;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return error_set(error, "%s: %s", path, strerror(errno));
    int status = output_open(&output, to, name, error);
    if (!status) {
        while (!status && (got = read(fd, buffer, CHUNK)) > 0)
            status = output_write(&output, buffer, (size_t)got, error);
        if (got < 0) status = error_set(error, "%s: %s", path, strerror(errno));
        status = output_close(&output, status, error);
    }
    close(fd);
    return status;
}

/* --- shards --- */

static void shard_name(const struct synthesis *s, int shard, char name[64]) {
    if (s->shards == 1)
        strcpy(name, "model.safetensors");
    else
        snprintf(name, 64, "model-%05d-of-%05d.safetensors", shard + 1, s->shards);
}

/* In order, a new file when the next tensor does not fit; a tensor larger than a file has its own. */
static void cut_shards(struct synthesis *s) {
    int64_t room = s->options->shard_bytes ? s->options->shard_bytes : SHARD_BYTES, used = 0;
    s->shards = 1;
    for (int i = 0; i < s->count; i++) {
        int64_t bytes = (int64_t)s->specs[i].bytes;
        if (used && used + bytes > room) {
            s->shards++;
            used = 0;
        }
        s->shard[i] = s->shards - 1;
        used += bytes;
        s->total += bytes;
    }
}

/* The header's JSON, padded with spaces so that the data begins at a multiple of 8; NULL without memory. */
static char *shard_header(const struct synthesis *s, int shard, int64_t *data_bytes) {
    static const char *const dtypes[] = {"F32", "F16", "BF16", "I32"};
    json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    *data_bytes = 0;
    for (int i = 0; i < s->count; i++) {
        const struct tensor_spec *spec = &s->specs[i];
        if (s->shard[i] != shard) continue;
        json_t *shape = json_pack("[I]", (json_int_t)spec->shape[0]);
        if (spec->rank == 2) json_array_append_new(shape, json_integer(spec->shape[1]));
        int64_t end = *data_bytes + (int64_t)spec->bytes;
        json_object_set_new(header, spec->name,
                            json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtypes[spec->dtype], "shape", shape,
                                      "data_offsets", (json_int_t)*data_bytes, (json_int_t)end));
        *data_bytes = end;
    }
    char *text = json_dumps(header, JSON_COMPACT);
    json_decref(header);
    if (!text) return NULL;
    size_t length = strlen(text), padded = (length + 7) / 8 * 8;
    char *header_text = malloc(padded + 1);
    if (header_text) snprintf(header_text, padded + 1, "%-*s", (int)padded, text);
    free(text);
    return header_text;
}

static int write_tensor(const struct synthesis *s, const struct tensor_spec *spec, struct output *output,
                        struct error *error) {
    for (size_t done = 0; done < spec->bytes; done += CHUNK) {
        size_t bytes = spec->bytes - done < CHUNK ? spec->bytes - done : CHUNK;
        fill(s, spec, done / 8, (bytes + 7) / 8);
        if (output_write(output, s->chunk, bytes, error)) return -1;
    }
    return 0;
}

static int write_shard(const struct synthesis *s, int shard, int64_t *bytes, struct error *error) {
    char name[64];
    struct output output;
    shard_name(s, shard, name);
    char *header = shard_header(s, shard, bytes);
    if (!header) return error_set(error, "%s/%s: out of memory", s->options->directory, name);
    uint64_t length = strlen(header);
    int status = output_open(&output, s->options->directory, name, error);
    if (!status) {
        status = output_write(&output, &length, 8, error) ? -1 : output_write(&output, header, length, error);
        for (int i = 0; i < s->count && !status; i++)
            if (s->shard[i] == shard) status = write_tensor(s, &s->specs[i], &output, error);
        status = output_close(&output, status, error);
    }
    free(header);
    return status;
}

static int write_shards(const struct synthesis *s, struct error *error) {
    int64_t done = 0, bytes;
    for (int shard = 0; shard < s->shards; shard++) {
        char name[64];
        if (write_shard(s, shard, &bytes, error)) return -1;
        shard_name(s, shard, name);
        done += bytes;
        if (s->options->report) s->options->report(name, bytes, done, s->total);
    }
    return 0;
}

static int write_index(const struct synthesis *s, struct error *error) {
    if (s->shards == 1) return 0;
    json_t *map = json_object();
    for (int i = 0; i < s->count; i++) {
        char name[64];
        shard_name(s, s->shard[i], name);
        json_object_set_new(map, s->specs[i].name, json_string(name));
    }
    json_t *index = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)s->total, "weight_map", map);
    return write_json(s->options->directory, "model.safetensors.index.json", index, error);
}

/* --- configuration --- */

static json_t *quantization_config(const struct model_config *c) {
    int group = c->group_all ? -1 : c->group;
    if (c->quant == QUANT_AWQ)
        return json_pack("{s:i, s:i, s:n, s:s, s:s, s:b}", "bits", 4, "group_size", group, "modules_to_not_convert",
                         "quant_method", "awq", "version", "gemm", "zero_point", 1);
    return json_pack("{s:i, s:i, s:s, s:b, s:b, s:f, s:b}", "bits", 4, "group_size", group, "quant_method", "gptq",
                     "sym", 1, "desc_act", 0, "damp_percent", 0.01, "true_sequential", 1);
}

static json_t *eos_ids(const struct model_config *c) {
    json_t *ids = json_array();
    for (int i = 0; i < c->eos_count; i++) json_array_append_new(ids, json_integer(c->eos[i]));
    return ids;
}

static int write_config(const struct synthesis *s, struct error *error) {
    const struct model_config *c = &s->options->config;
    json_t *root =
        json_pack("{s:[s], s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:b, s:b, s:b}", "architectures",
                  "Qwen2ForCausalLM", "model_type", "qwen2", "hidden_act", "silu", "torch_dtype", c->dtype,
                  "hidden_size", c->hidden, "intermediate_size", c->intermediate, "num_hidden_layers", c->layers,
                  "num_attention_heads", c->heads, "num_key_value_heads", c->kv_heads, "vocab_size", c->vocab,
                  "max_position_embeddings", c->max_position, "rms_norm_eps", c->rms_eps, "rope_theta", c->rope_theta,
                  "tie_word_embeddings", c->tied, "use_sliding_window", 0, "use_cache", 1);
    if (root && (c->hidden % c->heads || c->hidden / c->heads != c->head_dim))
        json_object_set_new(root, "head_dim", json_integer(c->head_dim));
    if (root && c->eos_count) json_object_set_new(root, "eos_token_id", json_integer(c->eos[0]));
    if (root && c->quant != QUANT_NONE) json_object_set_new(root, "quantization_config", quantization_config(c));
    if (root) json_object_set_new(root, "tilebook_synthetic", json_integer(s->options->seed));
    return write_json(s->options->directory, "config.json", root, error);
}

static int write_generation(const struct synthesis *s, struct error *error) {
    const struct model_config *c = &s->options->config;
    json_t *root =
        json_pack("{s:b, s:f, s:f, s:f, s:i, s:o}", "do_sample", c->do_sample, "temperature", c->temperature, "top_p",
                  c->top_p, "repetition_penalty", c->repetition_penalty, "top_k", c->top_k, "eos_token_id", eos_ids(c));
    return write_json(s->options->directory, "generation_config.json", root, error);
}

/* --- the whole --- */

static int make_directory(const char *directory, struct error *error) {
    if (!mkdir(directory, 0777)) return 0;
    if (errno != EEXIST) return error_set(error, "%s: %s", directory, strerror(errno));
    DIR *list = opendir(directory);
    if (!list) return error_set(error, "%s: %s", directory, strerror(errno));
    int entries = 0;
    for (struct dirent *entry; (entry = readdir(list));)
        entries += strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
    closedir(list);
    if (!entries) return 0;
    return error_set(error,
                     "%s: exists and holds %d files; accepted: a new or empty directory. Remove it, or name another",
                     directory, entries);
}

/* Better told now than after minutes of writing. */
static int check_space(const struct synthesis *s, struct error *error) {
    struct statvfs status;
    if (statvfs(s->options->directory, &status)) return 0;
    double room = (double)status.f_bavail * (double)status.f_frsize;
    if (room >= (double)s->total) return 0;
    return error_set(error, "%s: the checkpoint takes %.3g GB and the disk has %.3g GB left", s->options->directory,
                     (double)s->total / 1e9, room / 1e9);
}

static int write_all(struct synthesis *s, struct error *error) {
    static const char *const copied[] = {"tokenizer.json", "tokenizer_config.json"};
    const struct synthetic_options *options = s->options;
    s->shard = calloc((size_t)s->count, sizeof *s->shard);
    s->chunk = malloc(CHUNK);
    if (!s->shard || !s->chunk) return error_set(error, "out of memory");
    cut_shards(s);
    make_tables(s);
    if (make_directory(options->directory, error) || check_space(s, error) || write_shards(s, error) ||
        write_index(s, error) || write_generation(s, error))
        return -1;
    for (int i = 0; i < 2 && options->tokenizer; i++)
        if (copy_file(options->tokenizer, options->directory, copied[i], (char *)s->chunk, error)) return -1;
    return write_config(s, error);
}

int synthetic_write(const struct synthetic_options *options, struct error *error) {
    const struct model_config *config = &options->config;
    bool half = !strcmp(config->dtype, "float16");
    if (!half && (config->quant != QUANT_NONE || strcmp(config->dtype, "bfloat16")))
        return error_set(error, "dtype: found %s; accepted: float16%s", config->dtype,
                         config->quant == QUANT_NONE ? " or bfloat16" : " (the scales of 4-bit checkpoints)");
    struct synthesis *s = calloc(1, sizeof *s);
    if (!s) return error_set(error, "out of memory");
    s->options = options;
    int status = tensor_specs(config, &s->specs, &s->count, error);
    if (!status) status = write_all(s, error);
    free(s->specs);
    free(s->shard);
    free(s->chunk);
    free(s);
    return status;
}
