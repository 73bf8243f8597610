/* The M ranges of a table: where the winners cross, and what a row loses between the m that were searched. */
#ifndef TILEBOOK_RANGES_H
#define TILEBOOK_RANGES_H

#include "tuner/tune.h"

/* A row that loses more at a held-out m, beyond the noise, is split there. */
#define RANGES_REGRET 0.03

/* After the searches, as long as the budget lasts. Between two neighbouring items with different winners it bisects: at
 * an m between them the lower winner stays, unless the upper or a baseline is faster beyond the noise. Then each row is
 * tried at an m of its middle that was not measured, an odd one where there is one, against the neighbouring rows'
 * winners and the leaders of the searches around it. 0; what a trial's callback gave; -1 with tune->error. */
int ranges_refine(struct tune *tune);

/* The figures of the held-out m: how many, how many rows were split, and the worst regret of the others. */
struct ranges_summary {
    int tested, split;
    double worst;
    const struct tune_item *at; /* where the worst was; NULL if none was above 0 */
};
struct ranges_summary ranges_summarize(const struct tune *tune);

#endif
