/* One node of the demo, in C: it joins, prints a line for each event, and leaves when told to (SIGTERM).
 *
 *     node NAME KEY [SEED]       KEY is 64 hexadecimal digits, SEED the host:port of any node that runs
 *
 * bruit lives in this program's own poll() loop: `dispatch = manual` means that callbacks run inside
 * bruit_node_dispatch(), on this thread, and nowhere else. demo/node.py is the same program in Python. */

#include <bruit.h>

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        int rc_ = (call);                                                                                              \
        if (rc_ < 0) {                                                                                                 \
            fprintf(stderr, "%s: %s: %s\n", #call, bruit_err_name(rc_), bruit_last_error());                           \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static int told_to_leave[2]; /* a pipe: the signal handler writes, the loop polls */

static void on_sigterm(int signal_number)
{
    (void)signal_number;
    ssize_t written = write(told_to_leave[1], "x", 1);
    (void)written;
}

/* What the cluster tells us. The member and all its texts are valid during the call. */
static void on_event(const bruit_event *event, void *user)
{
    const bruit_member *member = event->member;
    (void)user;
    if (member)
        printf("event %s %s %s %llu\n", bruit_event_name(event->kind), member->name, member->address,
               (unsigned long long)member->epoch);
    else
        printf("event %s\n", bruit_event_name(event->kind));
}

static void parse_key(const char *hex, unsigned char key[32])
{
    for (int i = 0; i < 32; i++) {
        unsigned int byte;
        if (sscanf(hex + 2 * i, "%2x", &byte) != 1) {
            fprintf(stderr, "KEY: expected 64 hexadecimal digits\n");
            exit(2);
        }
        key[i] = (unsigned char)byte;
    }
}

int main(int argc, char **argv)
{
    bruit_config *config;
    bruit_node *node;
    unsigned char key[32];
    char address[64];

    if (argc < 3) {
        fprintf(stderr, "usage: %s NAME KEY [SEED]\n", argv[0]);
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    parse_key(argv[2], key);
    if (pipe(told_to_leave) != 0)
        return 1;
    signal(SIGTERM, on_sigterm);

    TRY(bruit_config_new(&config));
    TRY(bruit_config_set(config, "name", argv[1]));
    TRY(bruit_config_set(config, "bind", "127.0.0.1:0"));
    TRY(bruit_config_set(config, "cluster", "demo"));
    TRY(bruit_config_set(config, "dispatch", "manual"));
    TRY(bruit_config_add_key(config, key, sizeof key));
    if (argc > 3)
        TRY(bruit_config_add_seed(config, argv[3]));

    TRY(bruit_node_new(config, &node));
    bruit_config_free(config);
    TRY(bruit_node_on_event(node, BRUIT_EVENT_ALL, on_event, NULL, NULL, NULL));
    TRY(bruit_node_start(node)); /* from here on it looks for its seed until it finds it */
    TRY(bruit_node_address(node, address, sizeof address, NULL));
    printf("ready %s %s\n", argv[1], address);

    struct pollfd waits[2] = {{.fd = bruit_node_event_fd(node), .events = POLLIN},
                              {.fd = told_to_leave[0], .events = POLLIN}};
    while (!(waits[1].revents & POLLIN)) {
        if (poll(waits, 2, -1) < 0)
            continue; /* a signal came; its byte is in the pipe */
        TRY(bruit_node_dispatch(node, 0));
    }

    TRY(bruit_node_leave(node, 5000)); /* returns when peers know it */
    TRY(bruit_node_free(node));
    printf("bye %s\n", argv[1]);
    return 0;
}
