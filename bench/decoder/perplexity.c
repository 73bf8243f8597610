#include "bench/decoder/perplexity.h"

#include <math.h>
#include <time.h>

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

int perplexity_measure(struct model *model, const int *ids, int count, int chunk, struct perplexity *result,
                       struct error *error) {
    double start = now(), total = 0, sum;
    *result = (struct perplexity){.tokens = count, .chunk = chunk};
    if (count < 2 || chunk < 2)
        return error_set(error, "a text of %d tokens in chunks of %d: nothing to foretell; two of each are the least",
                         count, chunk);
    for (int done = 0; done < count; done += chunk) {
        int rows = count - done < chunk ? count - done : chunk;
        if (model_score(model, ids + done, rows, &sum, error)) return error_prefix(error, "chunk %d", result->chunks);
        total += sum;
        result->chunks++;
        result->counted += rows - 1;
    }
    result->nats = -total / result->counted;
    result->perplexity = exp(result->nats);
    result->seconds = now() - start;
    return 0;
}
