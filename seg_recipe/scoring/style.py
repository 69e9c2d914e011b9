"""The look of the report: one style sheet, light and dark, from 360 pixels up, with no font and no file from outside."""

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1f24; --pale: #5a6470; --line: #d9dee4; --panel: #f5f7f9;
  --accent: 37, 99, 235; --cell: 96, 150, 255;
  --good: #15803d; --bad: #b45309; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171b; --ink: #e8eaed; --pale: #a3adb8; --line: #333a42; --panel: #1d2126; --accent: 96, 150, 255; --cell: 37, 99, 235;
    --good: #4ade80; --bad: #fbbf24; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem; max-width: 68rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .2rem 0 .4rem; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .5rem; padding-top: .8rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p { margin: .4rem 0; }
.pale { color: var(--pale); font-size: .875rem; }
ul.notes { padding-left: 1.1rem; }
a:focus-visible, summary:focus-visible, .scroll:focus-visible { outline: 3px solid rgb(var(--accent)); outline-offset: 2px; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(10.5rem, 1fr)); gap: .6rem; margin: 1rem 0; padding: 0;
  list-style: none; }
.cards li { background: var(--panel); border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .8rem; }
.cards strong { display: block; font-size: 1.5rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.cards span { display: block; }
.cards span:first-child { text-wrap: balance; }
.bars { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr max-content; gap: .3rem .8rem; align-items: center;
  margin: .6rem 0; }
.bars { grid-auto-flow: dense; }
.bars > span { grid-column: 1; }
.bars .figure { grid-column: 3; font-variant-numeric: tabular-nums; white-space: nowrap; }
.bars .bar { grid-column: 2; }
.bar { position: relative; height: 1rem; background: var(--panel); border: 1px solid var(--line); border-radius: 2px; }
.bar i { position: absolute; inset: 0 auto 0 0; background: rgba(var(--accent), .55); }
.bar b { position: absolute; top: 50%; height: .6rem; margin-top: -.3rem; border: solid var(--ink); border-width: 0 2px; min-width: 3px; }
.bar b::before { content: ""; position: absolute; left: 0; right: 0; top: 50%; height: 2px; margin-top: -1px; background: var(--ink); }
.bar s { position: absolute; top: 50%; width: .5rem; height: .5rem; margin: -.25rem; border-radius: 50%; background: rgb(var(--accent)); }
.bar.around::before { content: ""; position: absolute; left: 50%; top: -2px; bottom: -2px; width: 1px; background: var(--pale); }
.better { color: var(--good); } .worse { color: var(--bad); }
.swatch { display: inline-block; width: .85em; height: .85em; border: 1px solid var(--pale); border-radius: 2px; margin-right: .4em;
  vertical-align: -.08em; }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
caption { text-align: left; padding-bottom: .3rem; }
th, td { padding: .25rem .55rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th[scope=row], th.name { text-align: left; }
tbody th[scope=row] { position: sticky; left: 0; background: var(--paper); font-weight: 500; z-index: 1; }
.matrix td { width: 2rem; min-width: 2rem; padding: .25rem .1rem; text-align: center; border: 1px solid var(--line); font-size: .75rem; }
.matrix thead th { vertical-align: bottom; padding: .3rem .1rem; text-align: center; }
.matrix thead th span { writing-mode: vertical-rl; transform: rotate(180deg); }
details { margin: .6rem 0; } summary { cursor: pointer; padding: .3rem 0; color: rgb(var(--accent)); }
.examples { display: grid; grid-template-columns: repeat(auto-fill, minmax(18rem, 1fr)); gap: 1rem; padding: 0; margin: .6rem 0;
  list-style: none; }
.examples figure { margin: 0; display: grid; grid-template-columns: 1fr 1fr; gap: 3px; }
.examples img { display: block; width: 100%; height: auto; }
.examples img.mask { image-rendering: pixelated; }
.examples div { position: relative; }
.examples div span { position: absolute; left: 0; bottom: 0; padding: 0 .35rem; font-size: .75rem;
  background: rgba(0, 0, 0, .65); color: #fff; }
.examples figcaption { grid-column: 1 / -1; font-size: .875rem; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem .9rem; padding: 0; margin: .5rem 0; list-style: none; font-size: .875rem; }
.causes { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: .4rem 2rem; }
.plot { width: 100%; max-width: 26rem; height: auto; }
.plot text { fill: var(--ink); font: 13px system-ui, sans-serif; }
@media (max-width: 40rem) {
  body { padding: .9rem; }
  .bars { grid-template-columns: 1fr max-content; gap: .1rem .8rem; }
  .bars .figure { grid-column: 2; text-align: right; }
  .bars .bar { grid-column: 1 / -1; margin-bottom: .45rem; }
}
"""
