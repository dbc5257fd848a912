#include "tests/unit/models.h"

static const float TENS[] = {10, 20};
static const bool YES = true, NO = false;

enum { NODE = ONNX_GRAPH_NODE, INNER = ONNX_FUNCTION_NODE };

static pm_graph *read_good(models_parts parts)
{
    pm_graph *graph = NULL;
    NETS_OK(models_read(&graph, parts));
    return graph;
}

// --- If

static void put_branch(pm_wire_out *out, const char *name, void (*body)(pm_wire_out *), const char *output)
{
    const size_t attribute = pm_wire_begin(out, ONNX_NODE_ATTRIBUTE);
    pm_wire_put_text(out, ONNX_ATTRIBUTE_NAME, name);
    const size_t graph = pm_wire_begin(out, ONNX_ATTRIBUTE_G);
    if (body)
        body(out);
    models_port(out, ONNX_GRAPH_OUTPUT, output, PM_TYPE_NONE);
    pm_wire_end(out, graph);
    pm_wire_put_int(out, ONNX_ATTRIBUTE_TYPE, 5);
    pm_wire_end(out, attribute);
}

static void adds_tens(pm_wire_out *out)
{
    models_tensor(out, "w", PM_TYPE_F32, 2, TENS);
    models_node(out, NODE, "Add", "x w", "sum");
}

static void negates(pm_wire_out *out)
{
    models_node(out, NODE, "Neg", "x", "sum");
}

static void put_if(pm_wire_out *out, const char *condition, const char *then_output, bool has_else)
{
    const size_t node = models_open_node(out, NODE, "If", condition, "y");
    put_branch(out, "then_branch", adds_tens, then_output);
    if (has_else)
        put_branch(out, "else_branch", negates, "sum");
    pm_wire_end(out, node);
}

static void always(pm_wire_out *out)
{
    models_tensor(out, "c", PM_TYPE_BOOL, 1, &YES);
    put_if(out, "c", "sum", false);
}

static void never(pm_wire_out *out)
{
    models_tensor(out, "c", PM_TYPE_BOOL, 1, &NO);
    put_if(out, "c", "sum", true);
}

static void missing(pm_wire_out *out)
{
    models_tensor(out, "c", PM_TYPE_BOOL, 1, &NO);
    put_if(out, "c", "sum", false);
}

// The second extent of x is 2, as PyTorch asks before a squeeze.
static void by_shape(pm_wire_out *out)
{
    static const int64_t one = 1, two = 2;
    models_tensor(out, "one", PM_TYPE_I64, 1, &one);
    models_tensor(out, "two", PM_TYPE_I64, 1, &two);
    models_node(out, NODE, "Shape", "x", "shape");
    models_node(out, NODE, "Gather", "shape one", "extent");
    models_node(out, NODE, "Equal", "extent two", "c");
    put_if(out, "c", "x", true); // hands on what is outside
}

static void by_batch(pm_wire_out *out)
{
    static const int64_t zero = 0, one = 1;
    models_tensor(out, "zero", PM_TYPE_I64, 1, &zero);
    models_tensor(out, "one", PM_TYPE_I64, 1, &one);
    models_node(out, NODE, "Shape", "x", "shape");
    models_node(out, NODE, "Gather", "shape zero", "extent");
    models_node(out, NODE, "Equal", "extent one", "c");
    put_if(out, "c", "sum", true);
}

static void by_data(pm_wire_out *out)
{
    models_node(out, NODE, "Not", "x", "c");
    put_if(out, "x", "sum", true);
}

Test(onnx_inline, the_branch_of_a_constant_condition_is_read_in_place_of_the_if)
{
    pm_graph *graph = read_good((models_parts){.graph = always});
    cr_assert_eq(pm_graph_param_count(graph), 1);
    cr_assert_str_eq(pm_graph_param(graph, 0)->name, "If_0/w");
    cr_assert_str_eq(pm_graph_output_name(graph), "y");
    models_gives(graph, 11, 22);
    graph = read_good((models_parts){.graph = never});
    cr_assert_eq(pm_graph_param_count(graph), 0);
    models_gives(graph, -1, -2);
}

Test(onnx_inline, a_condition_may_follow_from_shapes)
{
    models_gives(read_good((models_parts){.graph = by_shape}), 1, 2);
}

Test(onnx_inline, a_condition_that_is_not_known_is_refused_by_name)
{
    models_refused((models_parts){.graph = by_batch}, PM_UNSUPPORTED,
                   "node If_3 (If): its condition depends on the size of the batch");
    models_refused((models_parts){.graph = missing}, PM_INVALID, "node If_0 (If): it has no else_branch");
    models_refused((models_parts){.graph = by_data}, PM_UNSUPPORTED,
                   "node If_1 (If): its condition is not known before the model runs");
}

static void deep_branch(pm_wire_out *out)
{
    static int left;
    left = left == 0 ? 40 : left;
    const size_t node = models_open_node(out, NODE, "If", "c", left == 40 ? "y" : "sum");
    if (--left > 0)
        put_branch(out, "then_branch", deep_branch, "sum");
    else
        put_branch(out, "then_branch", negates, "sum");
    left = 0;
    pm_wire_end(out, node);
}

static void deep_branches(pm_wire_out *out)
{
    models_tensor(out, "c", PM_TYPE_BOOL, 1, &YES);
    deep_branch(out);
}

Test(onnx_inline, branches_have_a_greatest_depth)
{
    models_refused((models_parts){.graph = deep_branches}, PM_INVALID, "more than 32 deep");
}

// --- functions

// Opens the FunctionProto "own.NAME".
static size_t open_function(pm_wire_out *out, const char *name, const char *inputs, const char *outputs)
{
    const size_t function = pm_wire_begin(out, ONNX_MODEL_FUNCTIONS);
    pm_wire_put_text(out, ONNX_FUNCTION_NAME, name);
    pm_wire_put_text(out, ONNX_FUNCTION_DOMAIN, "own");
    models_words(out, ONNX_FUNCTION_INPUT, inputs);
    models_words(out, ONNX_FUNCTION_OUTPUT, outputs);
    return function;
}

// own.Scale(a, b): LeakyRelu(alpha = slope) of a, times b; own.Twice calls it on its own output.
static void scales(pm_wire_out *out)
{
    size_t function = open_function(out, "Scale", "a b", "out"),
           node = models_open_node(out, INNER, "LeakyRelu", "a", "t");
    models_reference(out, "alpha", ONNX_ATTRIBUTE_TYPE_FLOAT, "slope");
    pm_wire_end(out, node);
    models_node(out, INNER, "Mul", "t b", "out");
    models_attribute(out, ONNX_FUNCTION_DEFAULT, "slope", ONNX_ATTRIBUTE_TYPE_FLOAT, 0.5);
    pm_wire_end(out, function);
    function = open_function(out, "Twice", "a b", "out");
    node = models_open_node(out, INNER, "own.Scale", "a b", "t");
    models_reference(out, "slope", ONNX_ATTRIBUTE_TYPE_FLOAT, "steep");
    pm_wire_end(out, node);
    models_node(out, INNER, "own.Scale", "t b", "out");
    pm_wire_end(out, function);
}

static void calls_twice(pm_wire_out *out)
{
    static const float minus[] = {-1, -2};
    models_tensor(out, "w", PM_TYPE_F32, 2, minus);
    models_node(out, NODE, "Neg", "x", "t");
    const size_t node = models_open_node(out, NODE, "own.Twice", "t w", "y");
    models_attribute(out, ONNX_NODE_ATTRIBUTE, "steep", ONNX_ATTRIBUTE_TYPE_FLOAT, 3);
    pm_wire_end(out, node);
}

Test(onnx_inline, functions_are_read_in_place_of_their_calls_with_the_attributes_of_the_call)
{
    pm_graph *graph = read_good((models_parts){.graph = calls_twice, .functions = scales});
    cr_assert_eq(pm_graph_param_count(graph), 1);
    cr_assert_str_eq(pm_graph_param(graph, 0)->name, "w");
    cr_assert_str_eq(pm_graph_output_name(graph), "y");
    // -1 is 3 times as small: -3 * -1 = 3, then 3 * -1; -2: -6 * -2 = 12, then 12 * -2.
    models_gives(graph, -3, -24);
}

// An optional input left out, an input handed on, an output of each.
static void odd_functions(pm_wire_out *out)
{
    size_t function = open_function(out, "Odd", "a low high", "a cut");
    models_node(out, INNER, "Clip", "a low high", "cut");
    pm_wire_end(out, function);
}

static void calls_odd(pm_wire_out *out)
{
    static const float top = 1.5f;
    const size_t tensor = pm_wire_begin(out, ONNX_GRAPH_INITIALIZER);
    pm_wire_put_int(out, ONNX_TENSOR_DATA_TYPE, ONNX_FLOAT);
    pm_wire_put_text(out, ONNX_TENSOR_NAME, "top");
    pm_wire_put_bytes(out, ONNX_TENSOR_RAW_DATA, &top, sizeof top);
    pm_wire_end(out, tensor);
    models_node(out, NODE, "own.Odd", "x - top", "same cut");
    models_node(out, NODE, "Add", "same cut", "y");
}

Test(onnx_inline, inputs_of_a_call_may_be_left_out_and_handed_on)
{
    models_gives(read_good((models_parts){.graph = calls_odd, .functions = odd_functions}), 2, 3.5f);
}

static void cycle(pm_wire_out *out)
{
    size_t function = open_function(out, "A", "a", "out");
    models_node(out, INNER, "own.B", "a", "out");
    pm_wire_end(out, function);
    function = open_function(out, "B", "a", "out");
    models_node(out, INNER, "own.A", "a", "out");
    pm_wire_end(out, function);
}

static void calls_a(pm_wire_out *out)
{
    models_node(out, NODE, "own.A", "x", "y");
}

// A calls B twice, B calls C twice ...
static void doubling(pm_wire_out *out)
{
    for (char c = 'A'; c <= 'Z'; c++) {
        const char name[] = {c, 0};
        char callee[] = "own.?";
        callee[4] = (char)(c + 1);
        const size_t function = open_function(out, name, "a", "out");
        models_node(out, INNER, c == 'Z' ? "Neg" : callee, "a", "t");
        models_node(out, INNER, c == 'Z' ? "Neg" : callee, "t", "out");
        pm_wire_end(out, function);
    }
}

static void same_name(pm_wire_out *out)
{
    pm_wire_end(out, open_function(out, "A", "a", "a"));
    pm_wire_end(out, open_function(out, "A", "a", "a"));
}

static void no_output(pm_wire_out *out)
{
    pm_wire_end(out, open_function(out, "A", "a", ""));
}

static void makes_nothing(pm_wire_out *out)
{
    pm_wire_end(out, open_function(out, "A", "a", "out"));
}

Test(onnx_inline, functions_that_would_not_end_or_do_not_fit_are_refused, .timeout = 30)
{
    models_refused((models_parts){.graph = calls_a, .functions = cycle}, PM_INVALID, "it calls itself");
    models_refused((models_parts){.graph = calls_a, .functions = doubling}, PM_UNSUPPORTED,
                   "more than 65536 nodes");
    models_refused((models_parts){.graph = calls_a, .functions = same_name}, PM_INVALID,
                   "two functions have one name");
    models_refused((models_parts){.graph = calls_a, .functions = no_output}, PM_INVALID,
                   "it has 0 outputs, 1 are wanted");
    models_refused((models_parts){.graph = calls_a, .functions = makes_nothing}, PM_INVALID,
                   "input out is made by no node");
    models_refused((models_parts){.graph = calls_a}, PM_UNSUPPORTED, "operator A of domain 'own'");
}
