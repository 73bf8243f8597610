/* Any bytes as model.safetensors: an error, or tensors whose every byte can be read. The first byte chooses
 * whether the others are a whole file or only its JSON header, which random bytes seldom frame well. */
#include "tests/fuzz/fuzz_dir.h"

#include <string.h>

#include "bench/decoder/checkpoint.h"

enum { DATA_BYTES = 64 };

static void write_file(const uint8_t *bytes, size_t count) {
    if (!count || bytes[0] % 2) {
        fuzz_write("model.safetensors", bytes, count);
        return;
    }
    size_t header = count - 1, total = 8 + header + DATA_BYTES;
    uint8_t *file = calloc(1, total);
    if (!file) abort();
    for (int i = 0; i < 8; i++) file[i] = (uint8_t)((uint64_t)header >> 8 * i);
    memcpy(file + 8, bytes + 1, header);
    fuzz_write("model.safetensors", file, total);
    free(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count) {
    struct checkpoint *checkpoint;
    struct error error;
    unsigned sum = 0;
    write_file(bytes, count);
    if (checkpoint_open(fuzz_dir(), &checkpoint, &error)) return 0;
    for (int i = 0; i < checkpoint_count(checkpoint); i++) {
        const struct tensor *tensor = checkpoint_at(checkpoint, i);
        for (size_t j = 0; j < tensor->bytes; j++) sum += ((const uint8_t *)tensor->data)[j];
        if (checkpoint_find(checkpoint, tensor->name) != tensor) abort();
        checkpoint_get(checkpoint, tensor->name, 1u << DTYPE_F16, 2, 3, &error);
    }
    checkpoint_close(checkpoint);
    return sum == 1 ? -1 : 0;
}
