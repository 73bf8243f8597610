#include "bench/decoder/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/decoder/jsonfile.h"

enum { MOST_TENSORS = 1 << 20, HEADER_BYTES = 100000000, INDEX_BYTES = 100000000 };

struct shard {
    char *name;
    unsigned char *map;
    size_t bytes;
};

struct checkpoint {
    char *directory;
    struct shard *shards;
    int shard_count;
    struct tensor *tensors;
    int count, room;
};

static const struct {
    const char *name;
    enum dtype dtype;
    size_t bytes;
} dtypes[] = {
    {"F32", DTYPE_F32, 4},    {"F16", DTYPE_F16, 2},       {"BF16", DTYPE_BF16, 2},     {"I32", DTYPE_I32, 4},
    {"F64", DTYPE_OTHER, 8},  {"I64", DTYPE_OTHER, 8},     {"U64", DTYPE_OTHER, 8},     {"U32", DTYPE_OTHER, 4},
    {"I16", DTYPE_OTHER, 2},  {"U16", DTYPE_OTHER, 2},     {"I8", DTYPE_OTHER, 1},      {"U8", DTYPE_OTHER, 1},
    {"BOOL", DTYPE_OTHER, 1}, {"F8_E4M3", DTYPE_OTHER, 1}, {"F8_E5M2", DTYPE_OTHER, 1},
};

/* --- one entry of a header --- */

/* Sets the dtype; returns the bytes of one element, 0 for a dtype that is not known. */
static size_t element_bytes(const char *name, enum dtype *dtype) {
    *dtype = DTYPE_OTHER;
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        if (strcmp(dtypes[i].name, name)) continue;
        *dtype = dtypes[i].dtype;
        return dtypes[i].bytes;
    }
    return 0;
}

/* "[5120, 640]" */
static const char *shape_text(int rank, const int64_t *shape, char text[128]) {
    int used = snprintf(text, 128, "[");
    for (int i = 0; i < rank; i++)
        used += snprintf(text + used, 128 - (size_t)used, "%s%" PRId64, i ? ", " : "", shape[i]);
    snprintf(text + used, 128 - (size_t)used, "]");
    return text;
}

/* *elements: the product of the dimensions. */
static int read_shape(const json_t *shape, struct tensor *tensor, int64_t *elements, struct error *error) {
    size_t rank = json_array_size(shape);
    *elements = 1;
    if (!json_is_array(shape) || rank > 4) return error_set(error, "'shape' is not a list of at most 4 dimensions");
    for (size_t i = 0; i < rank; i++) {
        const json_t *dimension = json_array_get(shape, i);
        int64_t value = json_integer_value(dimension);
        if (!json_is_integer(dimension) || value < 0 || __builtin_mul_overflow(*elements, value, elements))
            return error_set(error, "'shape' has an impossible dimension");
        tensor->shape[i] = value;
    }
    tensor->rank = (int)rank;
    return 0;
}

static int read_offsets(const json_t *offsets, size_t data_bytes, size_t *begin, size_t *end, struct error *error) {
    const json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
    json_int_t low = json_integer_value(first), high = json_integer_value(last);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(last) || low < 0 || high < low)
        return error_set(error, "'data_offsets' is not [begin, end]");
    if ((uint64_t)high > data_bytes)
        return error_set(error,
                         "its data ends at byte %" PRId64 " of %zu: the file is truncated, or its header is wrong",
                         (int64_t)high, data_bytes);
    *begin = (size_t)low;
    *end = (size_t)high;
    return 0;
}

static int read_entry(const json_t *entry, const unsigned char *data, size_t data_bytes, struct tensor *tensor,
                      struct error *error) {
    size_t begin = 0, end = 0;
    int64_t elements, expected;
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    if (!dtype) return error_set(error, "'dtype' is not a string");
    if (read_shape(json_object_get(entry, "shape"), tensor, &elements, error) ||
        read_offsets(json_object_get(entry, "data_offsets"), data_bytes, &begin, &end, error))
        return -1;
    size_t bytes = element_bytes(dtype, &tensor->dtype);
    if (bytes && (__builtin_mul_overflow(elements, (int64_t)bytes, &expected) || (uint64_t)expected != end - begin)) {
        char text[128];
        return error_set(error, "%s %s does not take the %zu bytes that 'data_offsets' gives it", dtype,
                         shape_text(tensor->rank, tensor->shape, text), end - begin);
    }
    tensor->data = data + begin;
    tensor->bytes = end - begin;
    return 0;
}

/* --- one shard --- */

static int add_tensor(struct checkpoint *checkpoint, const struct tensor *tensor, struct error *error) {
    if (checkpoint->count == MOST_TENSORS) return error_set(error, "more than %d tensors", MOST_TENSORS);
    if (checkpoint->count == checkpoint->room) {
        int room = checkpoint->room ? 2 * checkpoint->room : 1024;
        struct tensor *tensors = realloc(checkpoint->tensors, (size_t)room * sizeof *tensors);
        if (!tensors) return error_set(error, "out of memory");
        checkpoint->tensors = tensors;
        checkpoint->room = room;
    }
    char *name = strdup(tensor->name);
    if (!name) return error_set(error, "out of memory");
    checkpoint->tensors[checkpoint->count] = *tensor;
    checkpoint->tensors[checkpoint->count++].name = name;
    return 0;
}

static int by_place(const void *left, const void *right) {
    const struct tensor *a = left, *b = right;
    const unsigned char *x = a->data, *y = b->data;
    if (x != y) return x < y ? -1 : 1;
    return a->bytes < b->bytes ? -1 : a->bytes > b->bytes;
}

/* As the format demands, the tensors cover the data from its first byte to its last. */
static int check_cover(struct tensor *tensors, int count, const unsigned char *data, size_t data_bytes,
                       struct error *error) {
    const unsigned char *expected = data;
    qsort(tensors, (size_t)count, sizeof *tensors, by_place);
    for (int i = 0; i < count; i++) {
        const unsigned char *begin = tensors[i].data;
        if (begin < expected)
            return error_set(error, "tensor '%.200s' overlaps '%.200s'", tensors[i].name, tensors[i - 1].name);
        if (begin > expected)
            return error_set(error, "%zu bytes before tensor '%.200s' belong to none", (size_t)(begin - expected),
                             tensors[i].name);
        expected = begin + tensors[i].bytes;
    }
    if (expected == data + data_bytes) return 0;
    return error_set(error, "%zu bytes after the last tensor belong to none", (size_t)(data + data_bytes - expected));
}

static int read_header(struct checkpoint *checkpoint, const struct shard *shard, struct error *error) {
    uint64_t header_bytes = 0;
    if (shard->bytes < 8) return error_set(error, "%zu bytes are too few for a safetensors file", shard->bytes);
    for (int i = 0; i < 8; i++) header_bytes |= (uint64_t)shard->map[i] << 8 * i;
    if (header_bytes > HEADER_BYTES || header_bytes > shard->bytes - 8)
        return error_set(error,
                         "the header says that it is %" PRIu64 " bytes long; the file has %zu: it is truncated or "
                         "not safetensors",
                         header_bytes, shard->bytes);
    json_error_t where;
    json_t *header = json_loadb((const char *)shard->map + 8, header_bytes, JSON_REJECT_DUPLICATES, &where);
    if (!json_is_object(header)) {
        json_decref(header);
        return error_set(error, "the header is not a JSON object: %s", header ? "another type" : where.text);
    }
    const unsigned char *data = shard->map + 8 + header_bytes;
    size_t data_bytes = shard->bytes - 8 - header_bytes;
    int first = checkpoint->count, status = 0;
    const char *name;
    json_t *entry;
    json_object_foreach(header, name, entry) {
        if (!strcmp(name, "__metadata__")) continue;
        struct tensor tensor = {.name = name, .file = shard->name};
        status = read_entry(entry, data, data_bytes, &tensor, error);
        if (status) error_prefix(error, "tensor '%.200s'", name);
        if (!status) status = add_tensor(checkpoint, &tensor, error);
        if (status) break;
    }
    json_decref(header);
    if (status) return status;
    if (checkpoint->count == first) return error_set(error, "there are no tensors");
    return check_cover(checkpoint->tensors + first, checkpoint->count - first, data, data_bytes, error);
}

static int map_shard(const char *path, struct shard *shard, struct error *error) {
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return error_set(error, "%s", strerror(errno));
    if (fstat(fd, &status) || !S_ISREG(status.st_mode) || status.st_size < 8) {
        close(fd);
        return error_set(error, "empty, or not a safetensors file");
    }
    shard->bytes = (size_t)status.st_size;
    void *map = mmap(NULL, shard->bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (map == MAP_FAILED) return error_set(error, "cannot be mapped: %s", strerror(errno));
    shard->map = map;
    return 0;
}

/* The shard of this name, mapped and read. */
static int add_shard(struct checkpoint *checkpoint, const char *name, struct error *error) {
    char path[PATH_MAX];
    struct shard *shards = realloc(checkpoint->shards, (size_t)(checkpoint->shard_count + 1) * sizeof *shards);
    if (!shards) return error_set(error, "out of memory");
    checkpoint->shards = shards;
    struct shard *shard = &shards[checkpoint->shard_count];
    *shard = (struct shard){.name = strdup(name)};
    if (!shard->name) return error_set(error, "out of memory");
    checkpoint->shard_count++;
    if (jsonfile_path(checkpoint->directory, name, path, error)) return -1;
    if (map_shard(path, shard, error) || read_header(checkpoint, shard, error))
        return error_prefix(error, "%.300s", path);
    return 0;
}

/* --- the index --- */

static const struct shard *find_shard(const struct checkpoint *checkpoint, const char *name) {
    for (int i = 0; i < checkpoint->shard_count; i++)
        if (!strcmp(checkpoint->shards[i].name, name)) return &checkpoint->shards[i];
    return NULL;
}

/* A plain name in the same directory, so that an index cannot reach other files. */
static bool plain_name(const char *name) {
    size_t length = strlen(name), suffix = strlen(".safetensors");
    return length > suffix && length < NAME_MAX && name[0] != '.' && !strchr(name, '/') &&
           !strcmp(name + length - suffix, ".safetensors");
}

static int open_shards(struct checkpoint *checkpoint, const struct jsonfile *index, struct error *error) {
    enum { MOST_SHARDS = 4096 };
    const json_t *map = json_object_get(index->root, "weight_map");
    const char *tensor;
    json_t *file;
    if (!json_object_size(map))
        return jsonfile_refuse(index, "weight_map", map, error, "tensor names with their files");
    json_object_foreach((json_t *)map, tensor, file) {
        const char *name = json_string_value(file);
        if (!name || !plain_name(name))
            return jsonfile_refuse(index, "weight_map", file, error, "names of .safetensors files beside the index");
        if (find_shard(checkpoint, name)) continue;
        if (checkpoint->shard_count == MOST_SHARDS)
            return error_set(error, "%s: more than %d files", index->path, MOST_SHARDS);
        if (!jsonfile_exists(checkpoint->directory, name))
            return error_set(error, "%.300s/%s: missing; the index says that it holds '%.200s': fetch the file again",
                             checkpoint->directory, name, tensor);
        if (add_shard(checkpoint, name, error)) return -1;
    }
    return 0;
}

static int check_index(const struct checkpoint *checkpoint, const struct jsonfile *index, struct error *error) {
    const char *name;
    json_t *file;
    json_object_foreach(json_object_get(index->root, "weight_map"), name, file) {
        const struct tensor *tensor = checkpoint_find(checkpoint, name);
        if (!tensor || strcmp(tensor->file, json_string_value(file)))
            return error_set(error, "%.300s: tensor '%.200s' should be in %s, and is %s%s", index->path, name,
                             json_string_value(file), tensor ? "in " : "nowhere", tensor ? tensor->file : "");
    }
    return 0;
}

static int by_name(const void *left, const void *right) {
    const struct tensor *a = left, *b = right;
    return strcmp(a->name, b->name);
}

static int sort_tensors(struct checkpoint *checkpoint, struct error *error) {
    qsort(checkpoint->tensors, (size_t)checkpoint->count, sizeof *checkpoint->tensors, by_name);
    for (int i = 1; i < checkpoint->count; i++) {
        const struct tensor *a = &checkpoint->tensors[i - 1], *b = &checkpoint->tensors[i];
        if (!strcmp(a->name, b->name))
            return error_set(error, "%.300s: tensor '%.200s' is in %s and in %s; accepted: once", checkpoint->directory,
                             a->name, a->file, b->file);
    }
    return 0;
}

static int open_sharded(struct checkpoint *checkpoint, struct error *error) {
    struct jsonfile index;
    if (jsonfile_read(checkpoint->directory, "model.safetensors.index.json", INDEX_BYTES, &index, error)) return -1;
    int status = open_shards(checkpoint, &index, error) || sort_tensors(checkpoint, error) ||
                 check_index(checkpoint, &index, error);
    jsonfile_close(&index);
    return status ? -1 : 0;
}

static int open_files(struct checkpoint *checkpoint, struct error *error) {
    const char *directory = checkpoint->directory;
    struct stat status;
    if (stat(directory, &status) || !S_ISDIR(status.st_mode))
        return error_set(error, "%s: no such directory", directory);
    if (jsonfile_exists(directory, "model.safetensors"))
        return add_shard(checkpoint, "model.safetensors", error) || sort_tensors(checkpoint, error) ? -1 : 0;
    if (jsonfile_exists(directory, "model.safetensors.index.json")) return open_sharded(checkpoint, error);
    return error_set(error,
                     "%s: there are no weights; accepted: model.safetensors, or model.safetensors.index.json with "
                     "its shards",
                     directory);
}

int checkpoint_open(const char *directory, struct checkpoint **checkpoint, struct error *error) {
    struct checkpoint *opened = calloc(1, sizeof *opened);
    *checkpoint = NULL;
    if (opened) opened->directory = strdup(directory);
    if (!opened || !opened->directory) {
        free(opened);
        return error_set(error, "%s: out of memory", directory);
    }
    if (open_files(opened, error)) {
        checkpoint_close(opened);
        return -1;
    }
    *checkpoint = opened;
    return 0;
}

void checkpoint_close(struct checkpoint *checkpoint) {
    if (!checkpoint) return;
    for (int i = 0; i < checkpoint->count; i++) free((char *)checkpoint->tensors[i].name);
    for (int i = 0; i < checkpoint->shard_count; i++) {
        if (checkpoint->shards[i].map) munmap(checkpoint->shards[i].map, checkpoint->shards[i].bytes);
        free(checkpoint->shards[i].name);
    }
    free(checkpoint->tensors);
    free(checkpoint->shards);
    free(checkpoint->directory);
    free(checkpoint);
}

/* --- looking up --- */

int checkpoint_count(const struct checkpoint *checkpoint) {
    return checkpoint->count;
}

const struct tensor *checkpoint_at(const struct checkpoint *checkpoint, int index) {
    return &checkpoint->tensors[index];
}

const struct tensor *checkpoint_find(const struct checkpoint *checkpoint, const char *name) {
    struct tensor key = {.name = name};
    return bsearch(&key, checkpoint->tensors, (size_t)checkpoint->count, sizeof key, by_name);
}

/* "F16 or BF16 [5120, 640]" */
static const char *wanted_text(unsigned wanted, int rank, const int64_t *shape, char text[192]) {
    static const char *const names[] = {"F32", "F16", "BF16", "I32", "another dtype"};
    char shapes[128];
    int used = 0;
    for (int i = 0; i <= DTYPE_OTHER; i++)
        if (wanted & 1u << i) used += snprintf(text + used, 64 - (size_t)used, "%s%s", used ? " or " : "", names[i]);
    snprintf(text + used, 192 - (size_t)used, " %s", shape_text(rank, shape, shapes));
    return text;
}

const struct tensor *checkpoint_get(const struct checkpoint *checkpoint, const char *name, unsigned dtypes,
                                    int64_t rows, int64_t columns, struct error *error) {
    int64_t shape[4] = {rows, columns};
    int rank = columns ? 2 : 1;
    char expected[192], found[192];
    wanted_text(dtypes, rank, shape, expected);
    const struct tensor *tensor = checkpoint_find(checkpoint, name);
    if (!tensor) {
        error_set(error, "%.300s: there is no tensor '%.200s'; expected: %s", checkpoint->directory, name, expected);
        return NULL;
    }
    if (dtypes & 1u << tensor->dtype && tensor->rank == rank && !memcmp(tensor->shape, shape, sizeof shape))
        return tensor;
    error_set(error, "%.300s/%s: tensor '%.200s': expected %s, found %s", checkpoint->directory, tensor->file, name,
              expected, wanted_text(1u << tensor->dtype, tensor->rank, tensor->shape, found));
    return NULL;
}
