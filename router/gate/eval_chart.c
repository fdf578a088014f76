/* The picture: SVG by hand, with the colours of both grounds in its style. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "router/gate/eval_report.h"

enum { WIDTH = 760, HEIGHT = 470, LEFT = 70, TOP = 50, PLOT_WIDTH = 480, PLOT_HEIGHT = 350, COLOURS = 8 };

static const char STYLE[] =
    "<style>\n"
    "svg{background:#fff;font:13px system-ui,sans-serif}text{fill:#222}.soft{fill:#666}.axis{stroke:#444}"
    ".grid{stroke:#ddd}.line{fill:none;stroke-width:2.2}.random{stroke:#888;stroke-dasharray:5 "
    "4;stroke-width:1.6}\n"
    ".c0{stroke:#0b62a8}.c1{stroke:#c4500a}.c2{stroke:#1a7f37}.c3{stroke:#8250df}.c4{stroke:#b3261e}.c5{"
    "stroke:#8a6d00}"
    ".c6{stroke:#0a7d8c}.c7{stroke:#a0338a}\n"
    ".p0{fill:#0b62a8}.p1{fill:#c4500a}.p2{fill:#1a7f37}.p3{fill:#8250df}.p4{fill:#b3261e}.p5{fill:#8a6d00}."
    "p6{fill:#0a7d8c}"
    ".p7{fill:#a0338a}\n"
    "@media(prefers-color-scheme:dark){svg{background:#16181c}text{fill:#e6e6e6}.soft{fill:#a5a5a5}.axis{"
    "stroke:#bbb}"
    ".grid{stroke:#33373d}.random{stroke:#999}\n"
    ".c0{stroke:#6cb6ff}.c1{stroke:#ff9e64}.c2{stroke:#6bd08a}.c3{stroke:#c6a4ff}.c4{stroke:#ff8a80}.c5{"
    "stroke:#e3c54a}"
    ".c6{stroke:#5fd3e3}.c7{stroke:#f29ad9}\n"
    ".p0{fill:#6cb6ff}.p1{fill:#ff9e64}.p2{fill:#6bd08a}.p3{fill:#c6a4ff}.p4{fill:#ff8a80}.p5{fill:#e3c54a}."
    "p6{fill:#5fd3e3}"
    ".p7{fill:#f29ad9}}\n"
    "</style>\n";

/* PGR from low to 1 goes up. */
struct frame {
    double low, high;
};

static double x_of(double share)
{
    return LEFT + share * PLOT_WIDTH;
}

static double y_of(const struct frame *frame, double pgr)
{
    double clipped = fmin(frame->high, fmax(frame->low, pgr));
    return TOP + PLOT_HEIGHT * (frame->high - clipped) / (frame->high - frame->low);
}

static bool put_escaped(struct buffer *out, const char *text)
{
    bool fits = true;
    for (; *text != '\0' && fits; text++) {
        if (*text == '<' || *text == '&' || *text == '>' || *text == '"')
            fits = buffer_append_format(out, "&#%d;", *text);
        else if ((unsigned char)*text >= ' ')
            fits = buffer_append(out, text, 1);
    }
    return fits;
}

static bool put_axes(const struct frame *frame, struct buffer *out)
{
    bool fits = true;
    for (int step = 0; step <= 5 && fits; step++) {
        double x = x_of(step / 5.0);
        fits = buffer_append_format(out,
                                    "<line class=\"grid\" x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\"/>"
                                    "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%d %%</text>\n",
                                    x, TOP, x, TOP + PLOT_HEIGHT, x, TOP + PLOT_HEIGHT + 20, step * 20);
    }
    for (int step = (int)ceil(frame->low * 4); step <= (int)floor(frame->high * 4) && fits; step++) {
        double y = y_of(frame, step / 4.0);
        fits = buffer_append_format(out,
                                    "<line class=\"%s\" x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\"/>"
                                    "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.2f</text>\n",
                                    step == 0 ? "axis" : "grid", LEFT, y, LEFT + PLOT_WIDTH, y, LEFT - 8,
                                    y + 4, step / 4.0);
    }
    return fits &&
           buffer_append_format(
               out,
               "<line class=\"axis\" x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\"/>\n"
               "<text class=\"soft\" x=\"%d\" y=\"%d\" text-anchor=\"middle\">share of strong calls</text>\n"
               "<text class=\"soft\" transform=\"translate(22 %d) rotate(-90)\" text-anchor=\"middle\">PGR: "
               "0 = weak, 1 = strong</text>\n",
               LEFT, TOP, LEFT, TOP + PLOT_HEIGHT, LEFT + PLOT_WIDTH / 2, HEIGHT - 25, TOP + PLOT_HEIGHT / 2);
}

static bool put_curve(const struct frame *frame, const struct stat_curve *curve, const char *class,
                      struct buffer *out)
{
    bool fits = buffer_append_format(out, "<polyline class=\"line %s\" points=\"", class);
    for (size_t i = 0; i < STAT_CURVE_POINTS && fits; i++) {
        double pgr = stat_pgr(curve->quality[i], curve->weak, curve->strong);
        fits = buffer_append_format(out, "%.1f,%.1f ", x_of((double)i / (STAT_CURVE_POINTS - 1)),
                                    y_of(frame, pgr));
    }
    return fits && buffer_append_text(out, "\"/>\n");
}

static bool put_name(const char *name, const char *class, bool is_line, size_t row, struct buffer *out)
{
    int x = LEFT + PLOT_WIDTH + 25;
    double y = TOP + 14 + 24.0 * (double)row;
    bool fits = is_line ? buffer_append_format(
                              out, "<line class=\"line %s\" x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\"/>",
                              class, x, y - 4, x + 26, y - 4)
                        : buffer_append_format(out, "<circle class=\"%s\" cx=\"%d\" cy=\"%.1f\" r=\"5\"/>",
                                               class, x + 13, y - 4);
    return fits && buffer_append_format(out, "<text x=\"%d\" y=\"%.1f\">", x + 34, y) &&
           put_escaped(out, name) && buffer_append_text(out, "</text>\n");
}

static bool put_policies(const struct eval_report *report, const struct frame *frame, struct buffer *out)
{
    bool fits = true;
    size_t colour = 0;
    for (size_t p = 0; p < report->policies->n && fits; p++) {
        const struct eval_policy *policy = &report->policies->policies[p];
        bool is_random = strcmp(policy->name, "random") == 0;
        char class[16];
        (void)snprintf(class, sizeof class, "%c%zu", policy->has_curve ? 'c' : 'p', colour % COLOURS);
        if (is_random)
            (void)snprintf(class, sizeof class, "random");
        else
            colour++;
        if (policy->has_curve)
            fits = put_curve(frame, &policy->curve, class, out);
        else if (!isnan(policy->point.pgr))
            fits = buffer_append_format(out, "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"6\"/>\n",
                                        class, x_of(policy->point.share), y_of(frame, policy->point.pgr));
        fits = fits && put_name(policy->name, class, policy->has_curve, p, out);
    }
    return fits;
}

/* The lowest and highest PGR that anything has, in quarters, 0 and 1 at least. */
static struct frame frame_of(const struct eval_policies *policies)
{
    struct frame frame = {0, 1};
    for (size_t p = 0; p < policies->n; p++) {
        const struct eval_policy *policy = &policies->policies[p];
        for (size_t i = 0; policy->has_curve && i < STAT_CURVE_POINTS; i++) {
            double pgr = stat_pgr(policy->curve.quality[i], policy->curve.weak, policy->curve.strong);
            frame.low = fmin(frame.low, floor(pgr * 4) / 4);
            frame.high = fmax(frame.high, ceil(pgr * 4 - 1e-9) / 4);
        }
    }
    frame.low = fmax(frame.low, -1);
    frame.high = fmin(frame.high, 2);
    return frame;
}

err_t eval_report_chart(const struct eval_report *report, struct buffer *out)
{
    const struct eval_run *run = report->run;
    if (report->policies == NULL || report->policies->n == 0 ||
        isnan(report->policies->policies[0].curve.apgr))
        return err_new(ERR_FAILED_PRECONDITION,
                       "there is nothing to draw: it takes two models of which one is better");
    struct frame frame = frame_of(report->policies);
    bool fits =
        buffer_append_format(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" "
            "role=\"img\">\n<title>PGR against the share of strong calls</title>\n",
            WIDTH, HEIGHT, WIDTH, HEIGHT) &&
        buffer_append_text(out, STYLE) &&
        buffer_append_format(out, "<text x=\"%d\" y=\"28\" font-weight=\"600\">", LEFT) &&
        put_escaped(out, run->models[run->weak].name) && buffer_append_text(out, " and ") &&
        put_escaped(out, run->models[run->strong].name) &&
        buffer_append_format(out, " over %zu cases: %.1f %% and %.1f %%</text>\n", run->cases->n,
                             100 * report->policies->policies[0].curve.weak,
                             100 * report->policies->policies[0].curve.strong) &&
        put_axes(&frame, out) && put_policies(report, &frame, out) && buffer_append_text(out, "</svg>\n");
    return fits ? err_ok() : err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the picture");
}
