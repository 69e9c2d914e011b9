// Says what was chosen in the list of classes. The list is not drawn anew for it, so that the focus stays.
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
