#include "bench/decoder/kv.h"

#include "kernels/device.h"

const char *kv_name(enum kv_type type) {
    return type == KV_FP8 ? "fp8" : "fp16";
}

int kv_parse(const char *text, enum kv_type *type, struct error *error) {
    *type = strcmp(text, "fp8") ? KV_FP16 : KV_FP8;
    return strcmp(text, kv_name(*type)) ? error_set(error, "'%s': keys and values are kept in fp16 or fp8", text) : 0;
}
