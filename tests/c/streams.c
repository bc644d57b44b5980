/* Byte streams: opened, taken in a callback, read and written with descriptors and without, shut down, closed. */
#include "test.h"

#include <poll.h>

/* The stream that was opened last. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER;
static bruit_stream *opened;

static void take(bruit_stream *stream, void *user) {
    (void)user;
    pthread_mutex_lock(&lock);
    opened = stream;
    pthread_cond_broadcast(&more);
    pthread_mutex_unlock(&lock);
}

static bruit_stream *taken(void) {
    pthread_mutex_lock(&lock);
    while (opened == NULL)
        pthread_cond_wait(&more, &lock);
    bruit_stream *stream = opened;
    opened = NULL;
    pthread_mutex_unlock(&lock);
    return stream;
}

static void write_all(bruit_stream *stream, const char *data, size_t len) {
    while (len > 0) {
        int count = bruit_stream_write(stream, data, len, PATIENCE_MS);
        CHECK(count > 0);
        data += count;
        len -= (size_t)count;
    }
}

static int is_ready(int fd, int timeout_ms) {
    struct pollfd one = {fd, POLLIN, 0};
    return poll(&one, 1, timeout_ms);
}

void test_streams(void) {
    bruit_node *a = test_started("a", "thread"), *b = test_started("b", "thread");
    bruit_stream *near = NULL, *far;
    char buf[1000], data[100000];
    uint64_t subscription = 0;
    memset(data, 'x', sizeof data);
    OK(bruit_node_on_stream(b, "t", take, NULL, NULL, &subscription));
    test_join(a, b);
    EQ(bruit_node_open_stream(a, "nobody", "t", 0, &near), BRUIT_E_NOT_FOUND);
    EQ(bruit_node_open_stream(a, "b", "t", 1, &near), BRUIT_E_INVALID);
    CHECK(near == NULL);

    /* There and back, in either compression. */
    for (uint32_t flags = 0; flags <= BRUIT_COMPRESS; flags += BRUIT_COMPRESS) {
        OK(bruit_node_open_stream(a, "b", "t", flags, &near));
        far = taken();
        OK(bruit_stream_peer(near, buf, sizeof buf, NULL));
        STREQ(buf, "b");
        OK(bruit_stream_peer(far, buf, sizeof buf, NULL));
        STREQ(buf, "a");
        OK(bruit_stream_topic(far, buf, sizeof buf, NULL));
        STREQ(buf, "t");
        EQ(bruit_stream_read(near, buf, sizeof buf, 0), BRUIT_E_BUSY);
        EQ(bruit_stream_read(near, buf, sizeof buf, 10), BRUIT_E_TIMEOUT);
        int fd = bruit_stream_fd(far, BRUIT_STREAM_READ);
        CHECK(fd >= 0);
        EQ(is_ready(bruit_stream_fd(near, BRUIT_STREAM_WRITE), 0), 1);
        EQ(bruit_stream_fd(near, 7), BRUIT_E_INVALID);
        write_all(near, data, sizeof data);
        EQ(is_ready(fd, PATIENCE_MS), 1);
        OK(bruit_stream_shutdown(near));
        EQ(bruit_stream_write(near, "x", 1, 0), BRUIT_E_STATE);
        size_t all = 0;
        for (int count; (count = bruit_stream_read(far, buf, sizeof buf, PATIENCE_MS)) != 0; all += (size_t)count)
            CHECK(count > 0 && memcmp(buf, data, (size_t)count) == 0);
        EQ(all, sizeof data);
        write_all(far, "thanks", 6);
        OK(bruit_stream_close(far));
        EQ(bruit_stream_read(near, buf, sizeof buf, PATIENCE_MS), 6);
        EQ(bruit_stream_read(near, buf, sizeof buf, PATIENCE_MS), 0);
        OK(bruit_stream_close(near));
        EQ(bruit_stream_close(near), BRUIT_E_HANDLE);
        EQ(bruit_stream_read(near, buf, sizeof buf, 0), BRUIT_E_HANDLE);
    }

    /* Who does not read is not written to beyond its window. */
    OK(bruit_node_open_stream(a, "b", "t", 0, &near));
    far = taken();
    size_t written = 0;
    for (int count; (count = bruit_stream_write(near, data, sizeof data, 1000)) != BRUIT_E_TIMEOUT; written += (size_t)count)
        CHECK(count > 0);
    CHECK(written > 900000 && written <= 1048576);
    EQ(bruit_stream_write(near, data, sizeof data, 0), BRUIT_E_BUSY);
    OK(bruit_stream_close(far));
    EQ(bruit_stream_write(near, data, sizeof data, PATIENCE_MS), BRUIT_E_CANCELED);
    OK(bruit_stream_close(near));

    /* What is not whole does not look so. */
    OK(bruit_node_open_stream(a, "b", "t", 0, &near));
    far = taken();
    EQ(bruit_stream_fail(far, 1, "no code"), BRUIT_E_INVALID);
    OK(bruit_stream_fail(far, BRUIT_E_REMOTE, "disk full"));
    EQ(bruit_stream_read(near, buf, sizeof buf, PATIENCE_MS), BRUIT_E_REMOTE);
    STREQ(bruit_last_error(), "disk full");
    EQ(bruit_stream_read(far, buf, sizeof buf, 0), BRUIT_E_STATE);
    OK(bruit_stream_close(far));
    OK(bruit_stream_fail(near, BRUIT_E_REMOTE, NULL));
    OK(bruit_stream_close(near));
    EQ(bruit_stream_fail(near, BRUIT_E_REMOTE, NULL), BRUIT_E_HANDLE);

    /* Nobody there; and a node that ends. */
    OK(bruit_node_open_stream(a, "b", "t", 0, &near));
    far = taken();
    OK(bruit_node_unsubscribe(b, subscription));
    bruit_stream *deaf = NULL;
    OK(bruit_node_open_stream(a, "b", "t", 0, &deaf));
    EQ(bruit_stream_read(deaf, buf, sizeof buf, PATIENCE_MS), BRUIT_E_NO_HANDLER);
    OK(bruit_stream_close(deaf));
    OK(bruit_node_leave(b, PATIENCE_MS));
    EQ(bruit_stream_read(near, buf, sizeof buf, PATIENCE_MS), BRUIT_E_UNREACHABLE);
    OK(bruit_node_free(a));
    OK(bruit_node_free(b));
    EQ(bruit_stream_write(near, "x", 1, 0), BRUIT_E_UNREACHABLE);
    OK(bruit_stream_close(near));
    OK(bruit_stream_close(far));
}
