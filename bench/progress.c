#include "bench/progress.h"

#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { BAR = 20, MAX_WIDTH = 240 };

double progress_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

const char *progress_time(double seconds, char text[32]) {
    long whole = seconds < 1e8 ? (long)(seconds + 0.5) : 99999999;
    if (whole >= 3600)
        snprintf(text, 32, "%ld:%02ld:%02ld", whole / 3600, whole / 60 % 60, whole % 60);
    else
        snprintf(text, 32, "%ld:%02ld", whole / 60, whole % 60);
    return text;
}

void progress_start(struct progress *progress, FILE *stream) {
    *progress = (struct progress){.stream = stream, .terminal = isatty(fileno(stream))};
}

static int columns(const struct progress *progress) {
    struct winsize size;
    if (ioctl(fileno(progress->stream), TIOCGWINSZ, &size) || size.ws_col < 20) return 80;
    return size.ws_col < MAX_WIDTH ? size.ws_col : MAX_WIDTH;
}

void progress_show(struct progress *progress, double share, double left_s, const char *text) {
    double now = progress_now();
    if (!progress->terminal || now - progress->drawn_s < 0.1) return;
    char line[MAX_WIDTH + 256], bar[BAR + 1], left[32] = "?";
    share = share < 0 ? 0 : share > 1 ? 1 : share;
    int full = (int)(share * BAR);
    memset(bar, '.', BAR);
    memset(bar, '#', (size_t)full);
    bar[BAR] = 0;
    if (left_s >= 0) progress_time(left_s, left);
    snprintf(line, sizeof line, "[%s] %3.0f%%  %s left  %s", bar, 100 * share, left, text);
    /* One column short of the edge: a full line would wrap and could not be taken back. */
    fprintf(progress->stream, "\r\033[K%.*s", columns(progress) - 1, line);
    fflush(progress->stream);
    progress->drawn_s = now;
}

void progress_end(struct progress *progress) {
    if (!progress->stream) return;
    if (progress->drawn_s > 0) fputs("\r\033[K", progress->stream);
    fflush(progress->stream);
    progress->drawn_s = 0;
}

void progress_line(struct progress *progress, const char *format, ...) {
    progress_end(progress);
    if (!progress->stream) return;
    if (progress->label) fputs(progress->label, progress->stream);
    va_list arguments;
    va_start(arguments, format);
    vfprintf(progress->stream, format, arguments);
    va_end(arguments);
    fputc('\n', progress->stream);
    fflush(progress->stream);
}
