import { formatCount, formatShare, formatValue, escapeMarkup, shorten } from "./text.ts";
import { ALL, visible, type View } from "./layout.ts";
import { COUNT } from "./model.ts";
import { LEAST, fillOf, labelOf, matching, rowOf, type Palette, type Pane } from "./paint.ts";

const WIDTH = 1200, ROW = 18, CHAR = 6.6; // of 11 px monospace

/** The picture as a document of its own: names as text, no script, nothing loaded. Each frame tells its numbers when it is pointed at. */
export function toSVG(panes: Pane[], rows: number, palette: Palette, unit: string, whole: number, view: View = ALL): string {
  const out: string[] = [];
  for (const pane of panes) {
    const g = pane.graph;
    visible(g, view, WIDTH, pane.up ? 1 : 0, g.lastRow, LEAST / 2, {
      frame(node, left, width) {
        const l = Math.max(0, left), w = Math.min(WIDTH, left + width) - l, y = rowOf(pane, g.depth[node]!) * ROW;
        const name = labelOf(g, node), short = shorten(name), room = Math.floor((w - 6) / CHAR);
        const text = name.length <= room ? name : room < 3 ? "" : short.length <= room ? short : `${[...short].slice(0, room - 1).join("")}…`;
        const numbers = `${formatShare(g.value(node) / whole)}, ${formatValue(g.value(node), unit)}, ${formatCount(g.total[COUNT]![node]!)} samples`;
        out.push(`<g><title>${escapeMarkup(name)}\n${escapeMarkup(numbers)}</title><rect x="${l.toFixed(2)}" y="${y}" width="${Math.max(0.3, w - 0.5).toFixed(2)}" height="${ROW - 1}" fill="${fillOf(palette, pane, node)}"/>` +
          (text ? `<text x="${(l + 3).toFixed(2)}" y="${y + 12.5}"${matching(pane, node) ? ` fill="${palette.matchInk}"` : ""}>${escapeMarkup(text)}</text>` : "") + "</g>");
      },
      merged(depth, left, width) {
        const l = Math.max(0, left), w = Math.min(WIDTH, left + width) - l;
        out.push(`<rect x="${l.toFixed(2)}" y="${rowOf(pane, depth) * ROW}" width="${Math.max(0.3, w).toFixed(2)}" height="${ROW - 1}" fill="url(#narrow)"/>`);
      },
    });
  }
  const height = rows * ROW;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" font-family="ui-monospace, Menlo, Consolas, monospace" font-size="11" fill="${palette.ink}">` +
    `<defs><pattern id="narrow" width="4" height="4" patternUnits="userSpaceOnUse"><path d="M0 4 4 0" stroke="${palette.hatch}"/></pattern></defs>` +
    `<rect width="100%" height="100%" fill="${palette.panel}"/>\n${out.join("\n")}\n</svg>\n`;
}
