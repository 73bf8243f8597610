/* Any bytes as config.json: an error, or a config whose numbers are bounded. */
#include "tests/fuzz/fuzz_dir.h"

#include "bench/decoder/tensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count) {
    struct model_config config;
    struct tensor_spec *specs;
    struct error error;
    int specs_count;
    fuzz_write("config.json", bytes, count);
    if (model_config_read(fuzz_dir(), &config, &error)) return 0;
    if (config.head_dim < 2 || config.heads % config.kv_heads || config.eos_count > 8) abort();
    if (!tensor_specs(&config, &specs, &specs_count, &error)) free(specs);
    return 0;
}
