// paramill snapshot: looks at a store, checks it, moves labels.
#include "cli/commands.h"
#include "snapshot/store.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char USAGE[] = "usage: paramill snapshot ls STORE [MODEL]\n"
                            "       paramill snapshot show STORE MODEL [VERSION|LABEL|newest]\n"
                            "       paramill snapshot verify STORE MODEL [VERSION|LABEL|newest|all]\n"
                            "       paramill snapshot label STORE MODEL LABEL VERSION|none\n";

static const char *metric_text(const pm_manifest *m, const char *name, char text[32])
{
    snprintf(text, 32, "-");
    for (uint32_t i = 0; i < m->metric_count; i++)
        if (!strcmp(m->metrics[i].name, name))
            snprintf(text, 32, "%.4f", m->metrics[i].value);
    return text;
}

static pm_status list_model(const char *root, const char *model)
{
    pm_store *store = NULL;
    uint64_t *versions = NULL;
    size_t count = 0, label_count = 0;
    pm_label labels[PM_LABELS_MAX];
    pm_status status = pm_store_open(&store, root, model, false);
    if (status.code == PM_OK)
        status = pm_store_list(store, &versions, &count);
    if (status.code == PM_OK)
        status = pm_store_labels(store, labels, &label_count);
    for (size_t i = 0; i < count && status.code == PM_OK; i++) {
        pm_manifest m;
        char loss[32], accuracy[32];
        status = pm_store_manifest(store, versions[i], &m);
        if (status.code != PM_OK)
            break;
        printf("%s %llu  step %llu  %s  loss %s  validation %s  %.12s", model, (unsigned long long)m.version,
               (unsigned long long)m.step, m.created, metric_text(&m, "train_loss", loss),
               metric_text(&m, "validation_accuracy", accuracy), m.digest);
        for (size_t l = 0; l < label_count; l++)
            if (labels[l].version == versions[i])
                printf("  %s", labels[l].name);
        putchar('\n');
        pm_manifest_free(&m);
    }
    free(versions);
    pm_store_close(&store);
    return status;
}

static pm_status list(const char *root, const char *model)
{
    if (model)
        return list_model(root, model);
    DIR *folder = opendir(root);
    if (!folder)
        return pm_fail_errno("%s", root);
    pm_status status = pm_ok();
    for (struct dirent *entry; status.code == PM_OK && (entry = readdir(folder));)
        if (pm_manifest_name_ok(entry->d_name))
            status = list_model(root, entry->d_name);
    closedir(folder);
    return status;
}

static pm_status show(pm_store *store, uint64_t version)
{
    pm_manifest m;
    char *json = NULL;
    pm_status status = pm_store_manifest(store, version, &m);
    if (status.code == PM_OK)
        status = pm_manifest_encode(&m, &json);
    if (status.code == PM_OK)
        puts(json);
    free(json);
    pm_manifest_free(&m);
    return status;
}

static pm_status verify_one(pm_store *store, uint64_t version)
{
    pm_status status = pm_store_verify(store, version);
    if (status.code == PM_OK)
        printf("%s %llu: every file is what its manifest says\n", pm_store_model(store),
               (unsigned long long)version);
    return status;
}

static pm_status verify_all(pm_store *store)
{
    uint64_t *versions;
    size_t count;
    pm_status status = pm_store_list(store, &versions, &count);
    for (size_t i = 0; i < count && status.code == PM_OK; i++)
        status = verify_one(store, versions[i]);
    free(versions);
    return status;
}

static pm_status run(int argc, char **argv)
{
    const char *verb = argv[1], *name = argc > 4 ? argv[4] : "newest";
    pm_store *store = NULL;
    uint64_t version = 0;
    if (!strcmp(verb, "ls"))
        return list(argv[2], argc > 3 ? argv[3] : NULL);
    bool label = !strcmp(verb, "label"), all = !strcmp(verb, "verify") && !strcmp(name, "all");
    pm_status status = pm_store_open(&store, argv[2], argv[3], false);
    const char *target = label ? argv[5] : name;
    if (status.code == PM_OK && !all && !(label && !strcmp(target, "none")))
        status = pm_store_resolve(store, target, &version);
    if (status.code == PM_OK && label)
        status = pm_store_label(store, argv[4], version);
    else if (status.code == PM_OK && all)
        status = verify_all(store);
    else if (status.code == PM_OK)
        status = !strcmp(verb, "show") ? show(store, version) : verify_one(store, version);
    pm_store_close(&store);
    return status;
}

int pm_cli_snapshot(int argc, char **argv)
{
    static const struct {
        const char *verb;
        int least, most;
    } verbs[] = {{"ls", 3, 4}, {"show", 4, 5}, {"verify", 4, 5}, {"label", 6, 6}};
    for (size_t i = 0; argc > 1 && i < sizeof verbs / sizeof verbs[0]; i++)
        if (!strcmp(argv[1], verbs[i].verb) && argc >= verbs[i].least && argc <= verbs[i].most)
            return pm_cli_finish("snapshot", run(argc, argv));
    bool help = argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"));
    return fputs(USAGE, help ? stdout : stderr), help ? 0 : 2;
}
