package config

import "testing"

func TestThin(t *testing.T) {
	doc, findings := Parse("#cloud-config\nhostname: web\ncoreos:\n  etcd:\n    peer-addr: a:1\n  units:\n  - name: a.service\n    drop-ins:\n    - name: x.conf\n      content: |\n        [Service]\n    command: start\n")
	t.Logf("%+v %+v", doc, findings)
	if doc.CoreOS.Units[0].DropIns[0].Content != "[Service]\n" {
		t.Error(doc)
	}
}
