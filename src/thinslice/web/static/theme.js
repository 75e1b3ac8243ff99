// The switch between light and dark; the choice is kept on this machine, the system's choice holds without one.
(function () {
  var root = document.documentElement;
  try {
    var kept = localStorage.getItem('ts_theme');
    if (kept === 'light' || kept === 'dark') root.style.colorScheme = kept;
  } catch (error) { /* storage is blocked: the system's choice holds */ }
  function isDark() {
    var scheme = root.style.colorScheme;
    return scheme ? scheme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  }
  document.addEventListener('DOMContentLoaded', function () {
    var button = document.getElementById('theme');
    if (!button) return;
    function label() { button.textContent = isDark() ? 'Light' : 'Dark'; }
    button.hidden = false;
    label();
    button.addEventListener('click', function () {
      root.style.colorScheme = isDark() ? 'light' : 'dark';
      try { localStorage.setItem('ts_theme', root.style.colorScheme); } catch (error) { /* blocked */ }
      label();
    });
  });
})();
