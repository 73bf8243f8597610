#include "bench/decoder/perplexity.h"

#include <math.h>

#include "bench/measure.h"

int perplexity_measure(struct model *model, const int *ids, int count, int chunk, struct perplexity *result,
                       struct error *error) {
    double start = measure_now(), total = 0, sum;
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
    result->seconds = measure_now() - start;
    return 0;
}
