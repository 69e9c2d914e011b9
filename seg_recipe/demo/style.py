"""The look of the page: one style sheet on top of Gradio's, light and dark, from 360 pixels up, with no font and no
file from outside.
"""

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONOSPACE = ("ui-monospace", "SFMono-Regular", "Menlo", "monospace")

STYLE = """
.gradio-container { width: 100%; max-width: 92rem !important; overflow-x: hidden; }
#header h1 { font-size: 1.4rem; line-height: 1.2; margin: 0 0 .2rem; }
#header p, #status p { margin: 0; color: var(--body-text-color); }
#header, #status, #views, #classes, :is(#header, #status, #views, #classes) .html-container { padding: 0; }
#status { min-height: 1.5rem; }
#status .failed { color: #b42318; font-weight: 600; }
.dark #status .failed { color: #ff9c8f; }
#draw, #another { font-size: .9rem; white-space: nowrap; }
.empty { display: grid; place-items: center; min-height: 24rem; padding: 1rem; text-align: center; border-radius: .5rem;
  border: 2px dashed var(--border-color-primary); color: var(--body-text-color); }
.views { display: grid; gap: .8rem; align-items: start; }
.views figure { margin: 0; min-width: 0; }
.views img { display: block; margin: 0 auto; width: 100%; height: auto; max-height: 82vh; object-fit: contain; border-radius: .4rem;
  background: var(--background-fill-secondary); }
.views figcaption { padding: .25rem .1rem 0; font-size: .875rem; color: var(--body-text-color); overflow-wrap: anywhere; }
.panel { display: grid; grid-template-columns: minmax(0, 1fr); gap: .7rem; color: var(--body-text-color); }
.opacity { display: grid; grid-template-columns: 1fr max-content; gap: .3rem; font-size: .875rem; font-weight: 600; }
.opacity output { font-variant-numeric: tabular-nums; }
.opacity input { grid-column: 1 / -1; width: 100%; height: 1.5rem; margin: 0; accent-color: var(--color-accent); }
.all { display: flex; gap: .5rem; }
.all button { flex: 1; margin: 0; padding: .4rem .5rem; font-size: .875rem; cursor: pointer;
  border: 1px solid var(--border-color-primary); border-radius: .35rem;
  background: var(--button-secondary-background-fill); color: var(--button-secondary-text-color); }
.panel :focus-visible { outline: 3px solid var(--color-accent); outline-offset: 2px; }
.panel .scroll { overflow-x: auto; }
.panel :is(table, thead, tbody, tr) { border: 0 !important; }
.panel table { width: 100%; margin: 0; border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
.panel th, .panel td { padding: .3rem 0 .3rem .6rem; border: 0; border-bottom: 1px solid var(--border-color-primary); text-align: right;
  vertical-align: middle; font-weight: 400; }
.panel thead th { font-weight: 600; vertical-align: bottom;  }
.panel th:first-child { text-align: left; padding-left: 0; }
.panel td, .panel thead th + th { width: 4.3rem; white-space: nowrap; }
.panel tbody label { display: flex; align-items: center; gap: .45rem; min-width: 7rem; cursor: pointer; overflow-wrap: break-word; }
.panel input[type=checkbox] { width: 1.1rem; height: 1.1rem; margin: 0; flex: none; accent-color: var(--color-accent); }
.swatch { flex: none; width: 1.1rem; height: 1.1rem; border: 1px solid var(--body-text-color); border-radius: .2rem; }
.bar { display: block; height: .25rem; min-width: 2.5rem; margin-bottom: .1rem; border-radius: 2px; background: var(--border-color-primary);
  overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--color-accent); }
@media (min-width: 60rem) { .views-2 { grid-template-columns: 1fr 1fr; } }
@media (max-width: 40rem) { .empty { min-height: 10rem; } }
"""

SENDS_CHOICES = """
const boxes = () => [...element.querySelectorAll('input[type=checkbox]')];
const send = () => trigger('input', {
  opacity: Number(element.querySelector('#opacity').value),
  shown: boxes().filter(box => box.checked).map(box => Number(box.value)),
  hidden: boxes().filter(box => !box.checked).map(box => Number(box.value)),
});
element.addEventListener('input', event => {
  if (event.target.id === 'opacity') element.querySelector('output').textContent = event.target.value + ' %';
  send();
});
element.addEventListener('click', event => {
  const all = event.target.dataset.all;
  if (!all) return;
  boxes().forEach(box => { box.checked = all === 'yes'; });
  send();
});
"""
"""What the list of classes does in the browser: it says what was chosen, and is not drawn anew for it, so that the
focus stays.
"""
