/* Callbacks a second into C, in both dispatch modes: messages are queued first, and then what it takes to call for all of them. */
#include <bruit.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MESSAGES 40000
#define ROUNDS 25
#define REACH 3e6

#define OK(call) \
    do { \
        if ((call) < 0) { \
            fprintf(stderr, "%s: %s\n", #call, bruit_last_error()); \
            exit(1); \
        } \
    } while (0)

/* What the handler waits for at the first message, and what it tells after the last. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int is_open, is_over;
static size_t heard;
static unsigned long bytes;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void wait_for(int *flag) {
    pthread_mutex_lock(&lock);
    while (!*flag)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}

static void set(int *flag) {
    pthread_mutex_lock(&lock);
    *flag = 1;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static void hear(const bruit_message *message, void *user) {
    (void)user;
    if (heard == 0)
        wait_for(&is_open);
    bytes += message->len;
    if (++heard == MESSAGES)
        set(&is_over);
}

static double measure(const char *dispatch) {
    bruit_config *config;
    bruit_node *node;
    char data[256];
    int is_manual = strcmp(dispatch, "manual") == 0;
    memset(data, 7, sizeof data);
    heard = bytes = 0;
    is_open = is_manual;
    is_over = 0;
    OK(bruit_config_new(&config));
    OK(bruit_config_set(config, "name", "self"));
    OK(bruit_config_set(config, "bind", "127.0.0.1:0"));
    OK(bruit_config_set(config, "dispatch", dispatch));
    OK(bruit_node_new(config, &node));
    OK(bruit_config_free(config));
    OK(bruit_node_on_message(node, "", hear, NULL, NULL, NULL));
    OK(bruit_node_start(node));
    for (int n = 0; n < MESSAGES; n++)
        OK(bruit_node_send(node, "self", NULL, data, sizeof data, BRUIT_RELIABLE));
    double began = now();
    if (is_manual)
        while (!is_over)
            OK(bruit_node_dispatch(node, 0));
    set(&is_open);
    wait_for(&is_over);
    double took = now() - began;
    OK(bruit_node_free(node));
    if (bytes != MESSAGES * sizeof data)
        exit(1);
    return MESSAGES / took;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void row(const char *what, const char *dispatch) {
    double rates[ROUNDS];
    for (int n = 0; n < ROUNDS; n++)
        rates[n] = measure(dispatch);
    qsort(rates, ROUNDS, sizeof rates[0], by_size);
    double rate = rates[ROUNDS / 2];
    printf("%-58s %9.2f million/s  reach %.0f million/s: %s\n", what, rate / 1e6, REACH / 1e6, rate >= REACH ? "OK" : "behind");
}

int main(void) {
    printf("callbacks: a node that tells itself %d messages of 256 B, medians of %d rounds\n\n", MESSAGES, ROUNDS);
    row("callbacks into C, thread mode", "thread");
    row("callbacks into C, manual mode", "manual");
    return 0;
}
