/* A bar with the time left on a terminal; plain lines in a log. */
#ifndef TILEBOOK_PROGRESS_H
#define TILEBOOK_PROGRESS_H

#include <stdbool.h>
#include <stdio.h>

struct progress {
    FILE *stream; /* NULL: nothing is written */
    bool terminal;
    const char *label; /* before each line that stays; NULL without */
    double drawn_s;    /* monotonic time of the last drawing; 0 while no bar is on the screen */
};

void progress_start(struct progress *progress, FILE *stream);
/* Draws the bar, at most ten times a second: share in [0,1], seconds left (negative if unknown), what is
 * going on. Nothing in a log. */
void progress_show(struct progress *progress, double share, double left_s, const char *text);
/* A line that stays, above the bar. */
void progress_line(struct progress *progress, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Takes the bar off the screen. */
void progress_end(struct progress *progress);

/* Seconds of a monotonic clock. */
double progress_now(void);
/* "1:02:03" or "2:03" into text, returned. */
const char *progress_time(double seconds, char text[32]);

#endif
