/* A store of texts that other members ask: "set" and "get" are topics, and what fails says why.
 *
 *     ./request_reply store 127.0.0.1:0                                prints: store is at 127.0.0.1:40123
 *     ./request_reply ask 127.0.0.1:40123 set color=blue               in another terminal: ok
 *     ./request_reply ask 127.0.0.1:40123 get color                    blue */
#include <bruit.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ENTRIES 100

static struct entry {
    char key[64], value[256];
} entries[ENTRIES];

static void check(int rc, const char *what) {
    if (rc < 0) {
        fprintf(stderr, "%s: %s: %s\n", what, bruit_err_name(rc), bruit_last_error());
        exit(1);
    }
}

/* Where the key is, or an empty place, or NULL. */
static struct entry *find(const char *key, size_t len) {
    struct entry *empty = NULL;
    for (struct entry *e = entries; e < entries + ENTRIES; e++) {
        if (strlen(e->key) == len && memcmp(e->key, key, len) == 0)
            return e;
        if (e->key[0] == '\0' && empty == NULL)
            empty = e;
    }
    return empty;
}

/* Callbacks of a node come one at a time, so the entries need no lock. */
static void on_set(const bruit_message *message, void *user) {
    (void)user;
    const char *text = message->data, *equals = message->len ? memchr(text, '=', message->len) : NULL;
    size_t key = equals ? (size_t)(equals - text) : 0, value = equals ? message->len - key - 1 : 0;
    if (key == 0 || key >= sizeof entries->key || value >= sizeof entries->value) {
        bruit_message_fail(message, BRUIT_E_INVALID, "expected key=value, of at most 63 and 255 bytes");
        return;
    }
    struct entry *e = find(text, key);
    if (e == NULL) {
        bruit_message_fail(message, BRUIT_E_LIMIT, "the store is full");
        return;
    }
    memcpy(e->key, text, key);
    memcpy(e->value, equals + 1, value);
    e->value[value] = '\0';
    bruit_message_reply(message, "ok", 2);
}

static void on_get(const bruit_message *message, void *user) {
    (void)user;
    struct entry *e = message->len ? find(message->data, message->len) : NULL;
    if (e == NULL || e->key[0] == '\0')
        bruit_message_fail(message, BRUIT_E_NOT_FOUND, "no such key");
    else
        bruit_message_reply(message, e->value, strlen(e->value));
}

static bruit_node *make(const char *name, const char *bind) {
    bruit_config *config;
    bruit_node *node;
    check(bruit_config_new(&config), "config");
    check(bruit_config_set(config, "name", name), "name");
    check(bruit_config_set(config, "bind", bind), "bind");
    check(bruit_node_new(config, &node), "new");
    check(bruit_config_free(config), "config");
    return node;
}

static int store(const char *bind) {
    char address[64];
    bruit_node *node = make("store", bind);
    check(bruit_node_on_message(node, "set", on_set, NULL, NULL, NULL), "listen");
    check(bruit_node_on_message(node, "get", on_get, NULL, NULL, NULL), "listen");
    check(bruit_node_start(node), "start");
    check(bruit_node_address(node, address, sizeof address, NULL), "address");
    printf("store is at %s\n", address);
    fflush(stdout);
    while (getchar() != EOF)
        ;
    bruit_node_leave(node, 2000);
    return bruit_node_free(node) < 0;
}

static int ask(const char *seed, const char *topic, const char *words) {
    bruit_message *reply;
    bruit_node *node = make("", "127.0.0.1:0"); /* a name of its own each time */
    check(bruit_node_start(node), "start");
    check(bruit_node_join(node, &seed, 1, 5000), "join");
    int rc = bruit_node_request(node, "store", topic, words, strlen(words), 5000, &reply);
    if (rc < 0) {
        fprintf(stderr, "%s: %s\n", bruit_err_name(rc), bruit_last_error());
    } else {
        printf("%.*s\n", (int)reply->len, (const char *)reply->data);
        bruit_message_unref(reply);
    }
    bruit_node_leave(node, 2000);
    bruit_node_free(node);
    return rc < 0;
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "store") == 0)
        return store(argv[2]);
    if (argc == 5 && strcmp(argv[1], "ask") == 0)
        return ask(argv[2], argv[3], argv[4]);
    fprintf(stderr, "usage: request_reply store HOST:PORT | request_reply ask SEED TOPIC TEXT\n");
    return 2;
}
