#include "bench/commands.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/device.h"

const char *argument_device(struct argp_state *state, const char *text) {
    struct error error;
    if (device_check_id(text, &error)) argp_error(state, "--device: %s", error.text);
    return text;
}

int argument_group(struct argp_state *state, const char *text) {
    static const char *const groups[] = {"all", "32", "64", "128"};
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
        if (!strcmp(text, groups[i])) return atoi(text);
    argp_error(state, "--group %s: accepted are 32, 64, 128 and all (one group for all of K)", text);
    return -1;
}

double argument_time(struct argp_state *state, const char *option, const char *text) {
    char *unit;
    double seconds = strtod(text, &unit);
    seconds *= *unit == 'h' ? 3600 : *unit == 'm' ? 60 : 1;
    bool known = isdigit((unsigned char)*text) && (!*unit || (strchr("smh", *unit) && !unit[1]));
    if (!known || !(seconds > 0 && seconds <= 1e7))
        argp_error(state, "--%s %s: not a time like 90s, 10m or 1h", option, text);
    return seconds;
}

double argument_number(struct argp_state *state, const char *option, const char *text, double least, double most) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= least && value <= most))
        argp_error(state, "--%s %s: not a number from %g to %g", option, text, least, most);
    return value;
}

long long argument_whole(struct argp_state *state, const char *option, const char *text, long long least,
                         long long most) {
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end || errno || value < least || value > most)
        argp_error(state, "--%s %s: not a whole number from %lld to %lld", option, text, least, most);
    return value;
}

static volatile sig_atomic_t interrupted;

static void interrupt(int signal) {
    (void)signal;
    interrupted = 1;
}

const volatile sig_atomic_t *catch_interrupt(void) {
    struct sigaction action = {.sa_handler = interrupt, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    return &interrupted;
}
