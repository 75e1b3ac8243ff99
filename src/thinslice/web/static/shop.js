// The demo shop's own script: what the tag holds is sent at once, and a page that comes back from the browser's memory
// shows the shelves and the session as they are now. The shop works without it.
(function () {
  'use strict';
  window.addEventListener('load', function () {
    if (window.thinslice && window.thinslice.flush) window.thinslice.flush();
  });

  function refresh() {
    fetch(location.href, { headers: { Accept: 'text/html' } }).then(function (answer) {
      if (!answer.ok) throw new Error('status ' + answer.status);
      return answer.text();
    }).then(function (text) {
      var fresh = new DOMParser().parseFromString(text, 'text/html');
      ['shelves', 'dock'].forEach(function (id) {
        var now = document.getElementById(id), next = fresh.getElementById(id);
        if (now && next) now.replaceWith(document.adoptNode(next));
      });
    }).catch(function () { /* the page stays as it was */ });
  }

  window.addEventListener('pageshow', function (event) {
    if (event.persisted) refresh();
  });
})();
