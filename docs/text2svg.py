#!/usr/bin/env python3
"""Terminal text on standard input → an SVG picture of it on standard output.

    make demo | docs/text2svg.py > docs/demo.svg
"""
import html
import sys

SIZE, WIDTH, HEIGHT, PAD = 13, 7.83, 17, 16  # font size; width and height of a character; margin
lines = [line.rstrip().expandtabs() for line in sys.stdin]
width = max(map(len, lines), default=0) * WIDTH + 2 * PAD
height = len(lines) * HEIGHT + 2 * PAD


def text(number, line):
    heading = line and not line.startswith(" ") and not set(line) <= set("─═")
    colour = "#7fd1ff" if line.startswith("==") else "#f2f2f2" if heading else "#c0c6cc"
    length = f' textLength="{len(line) * WIDTH:.1f}"' if line else ""
    y = PAD + (number + 0.8) * HEIGHT
    return f'<text x="{PAD}" y="{y:.1f}" fill="{colour}"{length} xml:space="preserve">{html.escape(line)}</text>'


print(f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" viewBox="0 0 {width:.0f} {height}"')
print(f'     font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="{SIZE}">')
print('<rect width="100%" height="100%" rx="8" fill="#1d2329"/>')
print("\n".join(text(number, line) for number, line in enumerate(lines) if line))
print("</svg>")
